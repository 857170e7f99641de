"""What is of no use any more, and in which order the rest is given up: by how little it would be regretted. Pure.

The order is that of GreedyDual-Size (Cao and Irani, 1997): the time that a byte of a thing costs to have again,
weighed by how lately the thing was used. Downloads cost about the same a byte, so they go by age; a quantized model
that took an hour of calibration stays longer than a merged one of the same age.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.words import aged, ago

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY = 86400.0
DOWNLOAD_GRACE = DAY
"""Seconds for which an interrupted download is left alone: its writer may go on."""
UNFINISHED_GRACE = 7 * DAY
"""Seconds for which what was not made to the end is left alone: the next attempt goes on from it."""
DETACHED_GRACE = 7 * DAY
"""Seconds for which a revision without a name is left alone: whoever asked for the commit may come again."""
_DOWNLOAD_RATE = 50e6
"""Bytes a second of a download where nothing was measured."""
_WORTH = 1 << 20
"""Bytes below which answers that were measured are no room worth the time to measure them again."""
_LEAST_COST = 5.0
"""Seconds that having anything again costs at least: what is small is not worth its trouble."""


def by_regret(items: Mapping[str, CacheItem], *, now: float) -> tuple[CacheItem, ...]:
    """What may be given up, the least regretted first; whole things, of which none is a part of another.

    First what was thrown away or is of no use any more, then what can be made or downloaded again. Left out: what a
    profile or a process uses, what cannot be had again, and what is the user's own. ``items``: all that is known.
    """
    parts = parts_of(items)
    free = [item for item in items.values() if _may_go(item, parts, now)]
    there = {item.path for item in free}
    whole = [item for item in free if item.parent not in there]
    return tuple(sorted(whole, key=lambda item: (*_regret(item, now), item.path)))


def useless_because(
    item: CacheItem,
    parts: Mapping[str, list[CacheItem]],
    *,
    now: float,
    trash_older_than: float = 7 * DAY,
) -> str:
    """Why nobody has any use for it; "" where somebody may. ``parts``: :func:`parts_of` all that is known.

    A revision that no branch or tag names may have been asked for by its commit: it is of no use once another
    revision of the repository has a name, and it was not used for a week itself.
    """
    if item.kind is Kind.TRASH and not item.trashable:
        return "half deleted: the rest of it goes"
    at = touched_at(item)
    if at is None:
        return ""
    age = now - at
    if item.kind is Kind.TRASH and age >= trash_older_than:
        return f"in the trash for {aged(age)}"
    if item.kind is Kind.INCOMPLETE and age >= DOWNLOAD_GRACE:
        return f"not written for {aged(age)}"
    if item.kind is Kind.REVISION and age >= DETACHED_GRACE and _superseded(item, parts):
        return f"no branch or tag names it any more, not used for {aged(age)}"
    if item.kind is Kind.UNFINISHED and age >= UNFINISHED_GRACE:
        return f"not made to the end, not touched for {aged(age)}"
    if item.kind is Kind.BROKEN and age >= UNFINISHED_GRACE:
        return f"did not pass its proof, not touched for {aged(age)}"
    return ""


def _superseded(item: CacheItem, parts: Mapping[str, list[CacheItem]]) -> bool:
    """Whether no name leads to this revision, and one leads to another of its repository."""
    siblings = parts.get(item.parent or "", ())
    return item.detached and any(one.kind is Kind.REVISION and not one.detached for one in siblings)


def stays_for_prune(item: CacheItem, parts: Mapping[str, list[CacheItem]]) -> str:
    """Why prune leaves it alone though it may be of no use; "" where it may go."""
    if item.profiles or any(part.profiles for part in parts.get(item.path, ())):
        return "used by profiles"
    if item.kind is Kind.FOLDER:
        return "in folders of yours"
    if item.users or any(part.users for part in parts.get(item.path, ())):
        return "in use by running processes"
    return "kept" if item.keep else ""


def to_be_had_again(item: CacheItem) -> bool:
    """Whether it can be had again."""
    return item.rebuild is not None and item.rebuild.possible


def parts_of(items: Mapping[str, CacheItem]) -> dict[str, list[CacheItem]]:
    """Path of a thing -> its parts."""
    parts: dict[str, list[CacheItem]] = {}
    for item in items.values():
        if item.parent is not None:
            parts.setdefault(item.parent, []).append(item)
    return parts


_PARTS = frozenset({Kind.REVISION, Kind.INCOMPLETE})


def _may_go(item: CacheItem, parts: Mapping[str, list[CacheItem]], now: float) -> bool:
    """Whether it may be given up for room."""
    if stays_for_prune(item, parts) or being_downloaded(item, parts, now):
        return False
    if item.kind is Kind.TRASH:
        return True
    if item.kind is Kind.REVISION:
        return _superseded(item, parts)
    if item.kind in (Kind.INCOMPLETE, Kind.UNFINISHED, Kind.BROKEN):
        at = touched_at(item)
        return at is not None and now - at >= DOWNLOAD_GRACE
    if item.kind is Kind.MEASURED and item.use.on_disk < _WORTH:
        return False
    return to_be_had_again(item)


def being_downloaded(item: CacheItem, parts: Mapping[str, list[CacheItem]], now: float) -> bool:
    """Whether somebody may be downloading into it at this moment."""
    return any(
        part.kind is Kind.INCOMPLETE and now - (touched_at(part) or 0.0) < DOWNLOAD_GRACE
        for part in parts.get(item.path, ())
    )


def touched_at(item: CacheItem) -> float | None:
    """When it was used or made last."""
    return max((at for at in (item.used_at, item.made_at) if at is not None), default=None)


def _regret(item: CacheItem, now: float) -> tuple[int, float]:
    """The order: what is least is given up first."""
    at = touched_at(item)
    age = 0.0 if at is None else max(0.0, now - at)
    if item.kind is Kind.TRASH:
        return 0, -age
    if item.kind in _PARTS or item.kind is Kind.BROKEN:
        return 1, -age
    again = item.rebuild
    # Of what is shared its part: it is freed once the others that hold it are given up too.
    shared = sum(one.allocated * min(1.0, one.here / one.needed) for one in item.use.claims)
    size = max(1.0, item.use.alone + shared)
    if again is not None and again.seconds is not None:
        cost = again.seconds
    else:
        cost = ((again.download if again else None) or item.use.on_disk) / _DOWNLOAD_RATE
    return 2, max(cost, _LEAST_COST) / size / (age / DAY + 1.0)


def regret_words(item: CacheItem, now: float) -> str:
    """Why it is given up for room."""
    if item.kind is Kind.TRASH:
        return "to make room: it is in the trash"
    at = touched_at(item)
    return f"to make room: last used {ago(at, now)}"
