"""Carries out a plan of deletion, thing by thing, and tells what happens as it does.

Right before its turn each thing is looked at again: what has changed, is being made or is in use stays, and the next
one goes on. Hub caches go through huggingface_hub, all else through the trash of its root.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import (
    Deleted,
    Deleting,
    DeletionEvent,
    DeletionPlan,
    DeletionReport,
    Kept,
)
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.errors import QuantuiError
from quantui.runtime.caches.measuring import never
from quantui.runtime.caches.places import Place, known_place
from quantui.runtime.caches.tree_deleting import delete_tree, empty_trashed, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quantui.runtime.caches.hub_deleting import HubDeleting

_OF_HUB = {Kind.HUB, Kind.REVISION, Kind.INCOMPLETE}

_NO_TRASH = "it cannot be moved away and back, only deleted"

_Placed = tuple[CacheItem, Place]


def delete(plan: DeletionPlan, *, cancelled: Callable[[], bool] = never) -> Iterator[DeletionEvent]:
    """Carry ``plan`` out. Events as they happen: for each thing Deleting, DeletionProgress, Deleted or Kept.

    The last event is the DeletionReport. What cannot be deleted is kept with the reason; ``cancelled`` is asked
    between any two files, and what it leaves half deleted is told as kept, and no longer taken for what it was.
    Stopping to take events stops the deletion the same way. Raises ``cache.outside`` (exit code 2) at once, before
    anything is touched, where a thing does not lie below a known root.
    """
    there = [item for item in plan.goes if os.path.lexists(item.path)]
    # Where the thing is gone, what made its root a known one may be gone with it.
    gone = [item for item in plan.goes if item not in there]
    placed = [(item, known_place(item.path, item.root)) for item in there]
    return _carried_out(plan, placed, gone, cancelled)


def _carried_out(
    plan: DeletionPlan,
    placed: Sequence[_Placed],
    gone: Sequence[CacheItem],
    cancelled: Callable[[], bool],
) -> Iterator[DeletionEvent]:
    errand = _Errand(plan.to_trash, cancelled)
    deleted = [Deleted(item, 0) for item in gone]
    for one in deleted:
        yield Deleting(one.item)
        yield one
    kept: list[Kept] = []
    stopped = False
    for group in _turns(placed):
        if cancelled():
            stopped = True
            break
        ended: set[str] = set()
        try:
            for event in errand.do(group):
                if isinstance(event, Deleted | Kept):
                    ended.add(event.item.path)
                    (deleted if isinstance(event, Deleted) else kept).append(event)  # type: ignore[arg-type]
                yield event
        except (QuantuiError, OSError) as error:
            for item, _ in group:
                if item.path not in ended:
                    stays = Kept(item, told(error))
                    kept.append(stays)
                    yield stays
    for root in {place.root for _, place in placed}:
        tidy(root)
    freed = sum(one.freed for one in deleted) + sum(one.freed for one in kept)
    cut = stopped or (len(deleted) < len(plan.goes) and cancelled())
    yield DeletionReport(tuple(deleted), tuple(kept), freed, cut)


def _turns(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """Things one by one in the order of the plan; parts of one repository together, at the first one's turn."""
    turns: list[list[_Placed]] = []
    of_repo: dict[str, list[_Placed]] = {}
    for item, place in placed:
        repo = item.parent if item.kind in _OF_HUB else None
        if repo is not None and repo in of_repo:
            of_repo[repo].append((item, place))
            continue
        turn = [(item, place)]
        turns.append(turn)
        if repo is not None:
            of_repo[repo] = turn
    return turns


class _Errand:
    """What the things of one plan have in common."""

    def __init__(self, to_trash: bool, cancelled: Callable[[], bool]) -> None:
        self._to_trash = to_trash
        self._cancelled = cancelled
        self._batch = secrets.token_hex(8)
        self._of_hub: HubDeleting | None = None

    def do(self, group: Sequence[_Placed]) -> Iterator[DeletionEvent]:
        """Delete one thing, or the parts of one repository that are to go. Raises QuantuiError and OSError."""
        item, place = group[0]
        yield from (Deleting(one) for one, _ in group)
        if self._to_trash and item.kind in {*_OF_HUB, Kind.TRASH}:
            why = "it is in the trash" if item.kind is Kind.TRASH else _NO_TRASH
            yield from (Kept(one, why) for one, _ in group)
        elif not place.parts:
            yield Kept(item, "it is a whole folder that quantui looks after: it stays")
        elif item.kind in _OF_HUB:
            if self._of_hub is None:
                from quantui.runtime.caches.hub_deleting import HubDeleting

                self._of_hub = HubDeleting()
            yield from self._of_hub.delete(group, cancelled=self._cancelled)
        elif item.kind is Kind.TRASH:
            yield from empty_trashed(item, place, cancelled=self._cancelled)
        else:
            yield from delete_tree(
                item, place, to_trash=self._to_trash, batch=self._batch, cancelled=self._cancelled
            )


def told(error: QuantuiError | OSError) -> str:
    """Why a thing stayed, for a person."""
    if isinstance(error, QuantuiError):
        return " ".join(part for part in (error.what, error.why) if part)
    return f"it cannot be removed: {error.strerror or error}"
