"""What the cache screen keeps while it is away: what was found, the selection, the filter, a deletion under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.caches.filters import Filter
from quantui.tui.cache_view import EVERYTHING, ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantui.domain.caches.items import CacheDisk, CacheItem, ScanProblem
    from quantui.tui.cache_job import DeletionJob
    from quantui.tui.session import Session


@dataclass
class CacheKept:
    """Selection and opened repositories are paths. ``reasons``: why a thing was proposed, by path."""

    items: dict[str, CacheItem] = field(default_factory=dict)
    problems: tuple[ScanProblem, ...] = ()
    disks: tuple[CacheDisk, ...] = ()
    roots: dict[str, str] = field(default_factory=dict)
    """Path of a known folder to its name."""
    budget: int | None = None
    selected: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    place: str = EVERYTHING
    order: str = ORDERS[0]
    text: str = ""
    filter: Filter = field(default_factory=Filter)
    """The last text of the filter that was understood."""
    job: DeletionJob | None = None

    @property
    def places(self) -> dict[str, str]:
        """Name of a place to its first folder."""
        found: dict[str, str] = {}
        for path, name in self.roots.items():
            found.setdefault(name, path)
        return found

    def found(self, items: Mapping[str, CacheItem], *, done: bool) -> None:
        """A scan gave ``items`` so far. What it did not come to yet stays as it was; at its end it has gone."""
        self.items = dict(items) if done else {**self.items, **items}
        if done:
            self.selected &= self.items.keys()
            self.reasons = {path: why for path, why in self.reasons.items() if path in self.items}

    def gone(self, paths: Iterable[str]) -> None:
        """These were deleted or moved away, with what was a part of them."""
        away = set(paths)
        away |= {item.path for item in self.items.values() if item.parent in away}
        self.items = {path: item for path, item in self.items.items() if path not in away}
        self.selected -= away

    def chosen(self) -> tuple[CacheItem, ...]:
        """The selected things that are there."""
        return tuple(self.items[path] for path in sorted(self.selected) if path in self.items)


def kept_of(session: Session) -> CacheKept:
    """What the session keeps for the screen."""
    kept: CacheKept = session.places.setdefault("cache", CacheKept())
    return kept
