"""What `prune` chooses: what is of no use, what is old, and more by regret until the goals are met. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import freed_by, on_disk
from quantui.domain.caches.freeing import Freeing
from quantui.domain.caches.items import CacheDisk, CacheItem, Kind
from quantui.domain.caches.regret import (
    DAY,
    being_downloaded,
    by_regret,
    parts_of,
    regret_words,
    stays_for_prune,
    to_be_had_again,
    useless_because,
)
from quantui.domain.caches.words import aged, joined, sized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "Chosen",
    "PruneRules",
    "Pruned",
    "Shortfall",
    "budget_used",
    "by_regret",
    "counts",
    "prune",
]

_PARTS = frozenset({Kind.REVISION, Kind.INCOMPLETE})
_ASKED_BY_NAME = frozenset({Kind.RUN})
"""Kinds that nothing makes again, and that age: they go only where they are named."""


@dataclass(frozen=True)
class PruneRules:
    """What prune is asked for. Sizes in bytes, ages in seconds.

    ``older_than``: everything that can be had again and was not used for so long. ``budget``: the most that all
    things together may take. ``keep_free``: what each file system shall have free. ``kinds``: nothing but these (None:
    all). ``trash_older_than``: what has been in the trash for longer is emptied.
    """

    older_than: float | None = None
    budget: int | None = None
    keep_free: int | None = None
    kinds: frozenset[Kind] | None = None
    trash_older_than: float = 7 * DAY


@dataclass(frozen=True)
class Chosen:
    """A thing that prune would delete: ``why`` in words."""

    item: CacheItem
    why: str


@dataclass(frozen=True)
class Shortfall:
    """A goal that deleting everything that may go does not meet: ``missing`` bytes, ``why`` in words."""

    goal: str
    missing: int
    why: str


@dataclass(frozen=True)
class Pruned:
    """What prune chose, in the order it is to go, and what it cannot reach."""

    chosen: tuple[Chosen, ...]
    shortfalls: tuple[Shortfall, ...] = ()

    @property
    def items(self) -> tuple[CacheItem, ...]:
        """The things alone."""
        return tuple(one.item for one in self.chosen)


def counts(item: CacheItem) -> bool:
    """Whether it counts against the budget: all but the user's own folders."""
    return item.kind is not Kind.FOLDER


def budget_used(items: Iterable[CacheItem]) -> int:
    """Bytes on disk that count against the budget, each byte once."""
    return on_disk(item for item in items if counts(item))


def prune(
    items: Mapping[str, CacheItem],
    rules: PruneRules,
    *,
    now: float,
    disks: Sequence[CacheDisk] = (),
) -> Pruned:
    """What is of no use any more, what ``rules.older_than`` names, and more by regret until budget and room are met.

    ``items``: all that is known, by path; ``disks``: the file systems that their roots lie on.
    """
    parts = parts_of(items)
    chosen: dict[str, Chosen] = {}
    for item in items.values():
        if not _wanted(item, rules) or stays_for_prune(item, parts):
            continue
        why = useless_because(item, parts, now=now, trash_older_than=rules.trash_older_than)
        if not why and rules.older_than is not None:
            why = _old_because(item, rules, rules.older_than, parts, now)
        if why:
            chosen[item.path] = Chosen(item, why)
    _without_parts(chosen)
    goals = _goals(items, rules, disks)
    freeing = Freeing(goal.holds for goal in goals)
    for one in chosen.values():
        freeing.add(one.item)
    more = _more(items, rules, goals, freeing, chosen, now)
    chosen.update({item.path: Chosen(item, regret_words(item, now)) for item in more})
    _without_parts(chosen)
    return Pruned(tuple(chosen.values()), _shortfalls(items, goals, freeing, chosen, parts))


@dataclass(frozen=True)
class _Goal:
    """``needed`` bytes to free of the things that ``holds`` is true of."""

    words: str
    needed: int
    holds: Callable[[CacheItem], bool]
    on_a_disk: bool = False


def _goals(
    items: Mapping[str, CacheItem], rules: PruneRules, disks: Sequence[CacheDisk]
) -> list[_Goal]:
    goals = []
    if rules.budget is not None:
        needed = budget_used(items.values()) - rules.budget
        goals.append(_Goal(f"the budget of {sized(rules.budget)}", needed, counts))
    for disk in disks if rules.keep_free is not None else ():
        roots = frozenset(disk.roots)
        keep = rules.keep_free or 0
        more = f" and {len(roots) - 1} more" if len(roots) > 1 else ""
        words = f"{sized(keep)} free on the disk of {min(roots, key=len, default='')}{more}"
        goals.append(_Goal(words, keep - disk.free_bytes, _lies_in(roots), on_a_disk=True))
    return [goal for goal in goals if goal.needed > 0]


def _lies_in(roots: frozenset[str]) -> Callable[[CacheItem], bool]:
    return lambda item: item.root in roots


def _more(
    items: Mapping[str, CacheItem],
    rules: PruneRules,
    goals: Sequence[_Goal],
    freeing: Freeing,
    chosen: Mapping[str, Chosen],
    now: float,
) -> list[CacheItem]:
    """The things beyond ``chosen`` that meet the goals; what turned out not to be needed is left out again."""
    if not goals:
        return []

    def met() -> bool:
        return all(freeing.freed(n) >= goal.needed for n, goal in enumerate(goals))

    def take(item: CacheItem, *, back: bool = False) -> None:
        # A repository takes the place of those parts of it that go anyway.
        inside = [one.item for one in chosen.values() if one.item.parent == item.path]
        for part in inside:
            (freeing.add if back else freeing.remove)(part)
        (freeing.remove if back else freeing.add)(item)

    more: list[CacheItem] = []
    for item in by_regret(items, now=now):
        if met():
            break
        if item.path in chosen or not _wanted(item, rules) or not item.use.on_disk:
            continue
        if any(goal.holds(item) and freeing.freed(n) < goal.needed for n, goal in enumerate(goals)):
            take(item)
            more.append(item)
    for item in [*reversed(more)]:
        take(item, back=True)
        if any(goal.holds(item) and freeing.freed(n) < goal.needed for n, goal in enumerate(goals)):
            take(item)
        else:
            more.remove(item)
    return more


def _without_parts(chosen: dict[str, Chosen]) -> None:
    """Leave out what goes with its whole."""
    for path in [path for path, one in chosen.items() if one.item.parent in chosen]:
        del chosen[path]


def _wanted(item: CacheItem, rules: PruneRules) -> bool:
    return rules.kinds is None or item.kind in rules.kinds


def _old_because(
    item: CacheItem,
    rules: PruneRules,
    older_than: float,
    parts: Mapping[str, list[CacheItem]],
    now: float,
) -> str:
    """Why ``older_than`` names it; "" where it does not."""
    named = item.kind in _ASKED_BY_NAME and rules.kinds is not None
    left = (Kind.TRASH, Kind.UNFINISHED, Kind.BROKEN)
    if item.kind in _PARTS or item.kind in left or not (named or to_be_had_again(item)):
        return ""
    if item.used_at is None or being_downloaded(item, parts, now):
        return ""
    age = now - item.used_at
    return f"not used for {aged(age)}" if age >= older_than else ""


def _shortfalls(
    items: Mapping[str, CacheItem],
    goals: Sequence[_Goal],
    freeing: Freeing,
    chosen: Mapping[str, Chosen],
    parts: Mapping[str, list[CacheItem]],
) -> tuple[Shortfall, ...]:
    found = []
    for number, goal in enumerate(goals):
        missing = goal.needed - freeing.freed(number)
        if missing <= 0:
            continue
        left: dict[str, list[CacheItem]] = {}
        for item in items.values():
            if item.parent is None and item.path not in chosen and goal.holds(item):
                why = stays_for_prune(item, parts)
                why = why or (
                    "too new, too small or of other kinds"
                    if to_be_had_again(item)
                    else "not to be had again"
                )
                left.setdefault(why, []).append(item)
        told = [f"{sized(on_disk(some))} {why}" for why, some in left.items() if on_disk(some)]
        goes = [one.item for one in chosen.values() if goal.holds(one.item)]
        shared = on_disk(goes) - freed_by(goes)
        told += [f"{sized(shared)} of what goes, which others hold too"] if shared else []
        words = f"what stays is {joined(told)}" if told else "nothing of what is listed is left"
        if goal.on_a_disk:
            words += "; the rest of the disk is not in this list"
        found.append(Shortfall(goal.words, missing, words))
    return tuple(found)
