"""What the cache screen shows of an inventory: places with totals, things in order, what is selected. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import freed_by, on_disk, plan_deletion
from quantui.domain.caches.filters import SORTS, Filter, Sort
from quantui.domain.caches.items import Kind
from quantui.domain.caches.naming import same_named
from quantui.domain.caches.pruning import counts
from quantui.domain.caches.words import area_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from quantui.domain.caches.items import CacheItem

EVERYTHING = "everything"
"""The place of all places."""
_ALWAYS = ("hub cache", "artifacts", "engines", "runs")
"""Places that are shown with nothing in them too."""
ORDERS = ("size", "frees", "used", "name")
"""What `o` goes through, from one to the next and back to the first."""


@dataclass(frozen=True)
class Wanted:
    """What is to be shown. ``items``: all that is known, by path; ``now``: seconds since the epoch.

    ``opened`` and ``selected`` are paths. ``places`` are the known folders: name to path, in their order.
    """

    items: Mapping[str, CacheItem]
    places: Mapping[str, str] = field(default_factory=dict)
    place: str = EVERYTHING
    filter: Filter = field(default_factory=Filter)
    order: str = ORDERS[0]
    opened: frozenset[str] = frozenset()
    selected: frozenset[str] = frozenset()
    now: float = 0.0


@dataclass(frozen=True)
class Line:
    """A row: a thing, what it is shown as a part of, and how many things are below it.

    ``where``: the end of the folder that it lies in, where another one of its name lies elsewhere.
    """

    item: CacheItem
    whole: CacheItem | None = None
    parts: int = 0
    opened: bool = False
    where: str = ""


@dataclass(frozen=True)
class Place:
    """A place with what is in it: bytes on disk, each once, and things that are no part of others."""

    name: str
    where: str
    on_disk: int
    things: int


@dataclass(frozen=True)
class Selected:
    """What is selected, all together: bytes that deleting it gives back, bytes that others hold too.

    ``things`` counts what is no part of another selected thing, ``hidden`` those that are not shown now, ``staying``
    those that may not go.
    """

    things: int = 0
    frees: int = 0
    shared: int = 0
    staying: int = 0
    hidden: int = 0


@dataclass(frozen=True)
class View:
    """Lines, and totals: of everything, of what the place has, and of what the filter leaves of that.

    ``budgeted``: bytes that count against the budget; ``trash``: things in it.
    ``partly``: paths of things of which a part is selected.
    """

    lines: tuple[Line, ...] = ()
    places: tuple[Place, ...] = ()
    things: int = 0
    matching: int = 0
    matching_bytes: int = 0
    matching_frees: int = 0
    budgeted: int = 0
    trash: int = 0
    selected: Selected = field(default_factory=Selected)
    partly: frozenset[str] = frozenset()

    @property
    def on_disk(self) -> int:
        """Bytes on disk of everything."""
        return self.places[0].on_disk if self.places else 0


class Viewer:
    """Makes one view after another. Sums over what has not changed since the last one are not made again.

    What is hard-linked makes them long: an engine shares tens of thousands of files with uv's cache.
    """

    def __init__(self) -> None:
        self._items: Mapping[str, CacheItem] = {}
        self._sums: dict[object, tuple[int, int]] = {}
        self._alike: dict[str, str] = {}

    def view(self, wanted: Wanted) -> View:
        """Everything that is shown, from everything that is known."""
        if wanted.items is not self._items:
            self._items, self._sums = wanted.items, {}
            self._alike = same_named(wanted.items.values())
        parts: dict[str, list[CacheItem]] = defaultdict(list)
        whole: list[CacheItem] = []
        for item in wanted.items.values():
            if item.parent is not None and item.parent in wanted.items:
                parts[item.parent].append(item)
            else:
                whole.append(item)
        there = [item for item in whole if wanted.place in (EVERYTHING, area_of(item))]
        matching = _matching(wanted, there, parts)
        chosen = [wanted.items[path] for path in wanted.selected if path in wanted.items]
        lines = _lines(wanted, matching, parts, self._alike)
        counted = [item for item in whole if counts(item)]
        bytes_, frees = self._sum((wanted.place, wanted.filter, len(matching)), matching)
        return View(
            lines,
            self._places(wanted, whole),
            len(there),
            len(matching),
            bytes_,
            frees,
            self._sum("budget", counted)[0],
            sum(item.kind is Kind.TRASH for item in whole),
            _selected(wanted.items, chosen, lines),
            frozenset(item.parent for item in chosen if item.parent is not None),
        )

    def _sum(self, what: object, items: Sequence[CacheItem]) -> tuple[int, int]:
        """Bytes on disk of the things, and what deleting them gives back."""
        if what not in self._sums:
            self._sums[what] = (on_disk(items), freed_by(items))
        return self._sums[what]

    def _places(self, wanted: Wanted, whole: list[CacheItem]) -> tuple[Place, ...]:
        """Everything first, then the places with things in them, the largest first, then those with none."""
        in_place: dict[str, list[CacheItem]] = {
            name: [] for name in _ALWAYS if name in wanted.places
        }
        for item in whole:
            in_place.setdefault(area_of(item), []).append(item)
        found = []
        for name, items in in_place.items():
            roots = list(dict.fromkeys(item.root for item in items))
            where = roots[0] if len(roots) == 1 else wanted.places.get(name, "")
            if len(roots) > 1:
                where = f"{len(roots)} folders"
            found.append(Place(name, where, self._sum(name, items)[0], len(items)))
        found.sort(key=lambda place: (-place.on_disk, place.things == 0))
        return (Place(EVERYTHING, "", self._sum(EVERYTHING, whole)[0], len(whole)), *found)


def _lines(
    wanted: Wanted,
    matching: list[CacheItem],
    parts: Mapping[str, list[CacheItem]],
    alike: Mapping[str, str],
) -> tuple[Line, ...]:
    """The rows in order, the parts of what is opened below it."""
    sort = Sort(wanted.order, SORTS[wanted.order][0])
    lines: list[Line] = []
    for item in sort.apply(matching):
        below = parts.get(item.path, ())
        opened = bool(below) and item.path in wanted.opened
        lines.append(Line(item, None, len(below), opened, alike.get(item.path, "")))
        if opened:
            lines += [Line(part, item) for part in sort.apply(below)]
    return tuple(lines)


def _matching(
    wanted: Wanted, there: list[CacheItem], parts: Mapping[str, list[CacheItem]]
) -> list[CacheItem]:
    """What the filter leaves: whole things, and parts of those that it does not."""
    if not wanted.filter.terms:
        return there
    found: list[CacheItem] = []
    for item in there:
        if wanted.filter.matches(item, wanted.now):
            found.append(item)
        else:
            below = parts.get(item.path, ())
            found += [part for part in below if wanted.filter.matches(part, wanted.now)]
    return found


def _selected(
    items: Mapping[str, CacheItem], chosen: list[CacheItem], lines: Iterable[Line]
) -> Selected:
    if not chosen:
        return Selected()
    shown = {line.item.path for line in lines}
    plan = plan_deletion(chosen, items)
    count = len(plan.goes) + len(plan.stays)
    every = (*plan.goes, *(one.item for one in plan.stays))
    hidden = sum(item.path not in shown and item.parent not in shown for item in every)
    return Selected(count, plan.frees, plan.shared, len(plan.stays), hidden)


def mark_of(item: CacheItem, selected: Collection[str], partly: Collection[str]) -> str:
    """``●`` selected, ``·`` it goes with what it is a part of, ``◐`` a part of it is selected, or nothing."""
    if item.path in selected:
        return "●"
    if item.parent is not None and item.parent in selected:
        return "·"
    return "◐" if item.path in partly else ""


def next_order(order: str) -> str:
    """The order after ``order``."""
    return ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)] if order in ORDERS else ORDERS[0]


def may_go(lines: Iterable[Line]) -> tuple[str, ...]:
    """The paths of the lines that are no parts, and that nothing keeps or uses."""
    return tuple(
        line.item.path
        for line in lines
        if line.whole is None and not line.item.keep and not line.item.busy
    )
