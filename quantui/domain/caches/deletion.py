"""What deleting things gives back, and the plan of a deletion: what goes, what stays and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Claim, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Staying:
    """A thing that was asked to go and stays: ``why`` in words."""

    item: CacheItem
    why: str


@dataclass(frozen=True)
class DeletionPlan:
    """``goes`` are deleted, in this order; ``frees``: bytes on disk that this gives back, all together.

    ``shared``: bytes of theirs that stay, because others hold them too. ``to_trash``: they are moved away and
    nothing is freed until the trash is emptied.
    """

    goes: tuple[CacheItem, ...]
    stays: tuple[Staying, ...]
    frees: int
    shared: int
    to_trash: bool = False


@dataclass(frozen=True)
class Deleting:
    """A thing's turn has come. Bytes and files of :class:`DeletionProgress` count from here."""

    item: CacheItem


@dataclass(frozen=True)
class DeletionProgress:
    """So far of the thing under way: files removed, bytes on disk given back."""

    item: CacheItem
    files: int
    freed: int


@dataclass(frozen=True)
class Deleted:
    """A thing is gone. ``freed``: bytes on disk that this gave back, counted as they went, not estimated.

    ``trashed``: where it was moved to instead; nothing is freed then.
    """

    item: CacheItem
    freed: int
    files: int = 0
    trashed: str = ""


@dataclass(frozen=True)
class Kept:
    """A thing stayed though it was to go: ``why``. ``freed``: bytes of it that are gone all the same."""

    item: CacheItem
    why: str
    freed: int = 0


@dataclass(frozen=True)
class DeletionReport:
    """The end: what went, what stayed. ``freed``: bytes on disk, of all. ``cancelled``: the rest was not begun."""

    deleted: tuple[Deleted, ...]
    kept: tuple[Kept, ...]
    freed: int
    cancelled: bool = False


DeletionEvent = Deleting | DeletionProgress | Deleted | Kept | DeletionReport


def on_disk(items: Iterable[CacheItem]) -> int:
    """Bytes on disk of things together: what they share counts once, and so do parts of a thing that is there too."""
    things = outermost(items)
    claims = {claim.key: claim.allocated for item in things for claim in item.use.claims}
    return sum(item.use.alone for item in things) + sum(claims.values())


def freed_by(items: Iterable[CacheItem]) -> int:
    """Bytes on disk that deleting these things together gives back."""
    things = outermost(items)
    return sum(item.use.alone for item in things) + sum(
        claim.allocated for claim in _joined(things).values() if claim.here >= claim.needed
    )


def outermost(items: Iterable[CacheItem]) -> tuple[CacheItem, ...]:
    """The things without those whose parent is among them: a repository goes with all its revisions."""
    there = {item.path: item for item in items}
    return tuple(item for item in there.values() if item.parent not in there)


def plan_deletion(
    chosen: Sequence[CacheItem],
    everything: Mapping[str, CacheItem],
    *,
    to_trash: bool = False,
) -> DeletionPlan:
    """The plan for ``chosen``; ``everything``: all that is known, by path.

    What a running process uses, what quantui may not delete and (``to_trash``) what cannot be moved away stays.
    A repository stays whole where a part of it is in use, its other parts too. Of another thing that stays, the chosen
    parts may go: a folder may hold models.
    """
    goes: list[CacheItem] = []
    stays: list[Staying] = []
    chosen_parts: dict[str, list[CacheItem]] = {}
    for item in chosen:
        if item.parent is not None:
            chosen_parts.setdefault(item.parent, []).append(item)
    # Only these are asked for below, once for each chosen repository.
    parts_in_use = {
        path: item for path, item in everything.items() if item.parent is not None and item.users
    }
    turns = list(outermost(chosen))
    for item in turns:
        why = stays_because(item, parts_in_use, to_trash=to_trash)
        if why:
            stays.append(Staying(item, why))
            if item.kind is not Kind.HUB:
                turns += outermost(chosen_parts.get(item.path, ()))
        else:
            goes.append(item)
    frees = 0 if to_trash else freed_by(goes)
    shared = 0 if to_trash else on_disk(goes) - frees
    return DeletionPlan(tuple(goes), tuple(stays), frees, shared, to_trash)


def stays_because(
    item: CacheItem, everything: Mapping[str, CacheItem], *, to_trash: bool = False
) -> str:
    """Why a thing may not go now; "" where it may."""
    if item.keep:
        return item.keep
    users = list(item.users)
    if item.kind is Kind.HUB:
        users += [
            use for part in everything.values() if part.parent == item.path for use in part.users
        ]
    if users:
        first = users[0]
        more = len({use.pid for use in users}) - 1
        others = f", and {more} more" if more else ""
        return f"in use: {first.name} (process {first.pid}) {first.how}{others}"
    if to_trash and item.kind is Kind.TRASH:
        return "it is in the trash already"
    if to_trash and not item.trashable:
        return "it cannot be moved away and back, only deleted"
    return ""


def _joined(items: Iterable[CacheItem]) -> dict[str, Claim]:
    """The claims of things together: holders added, the largest number needed."""
    joined: dict[str, Claim] = {}
    for item in items:
        for claim in item.use.claims:
            before = joined.get(claim.key)
            if before is None:
                joined[claim.key] = claim
            else:
                joined[claim.key] = Claim(
                    claim.key,
                    before.here + claim.here,
                    max(before.needed, claim.needed),
                    max(before.allocated, claim.allocated),
                )
    return joined
