"""Deletes one folder or file of quantui's own or of the user's, moves one to the trash, or empties one of the trash."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import Deleted, DeletionEvent, DeletionProgress, Kept
from quantui.domain.caches.items import Kind
from quantui.domain.errors import QuantuiError
from quantui.runtime.caches import trash_moves as moves
from quantui.runtime.caches.guards import (
    changed,
    forget_maker,
    guarded,
    refuse_changed,
    refuse_used,
)
from quantui.runtime.caches.measuring import measure_tree
from quantui.runtime.caches.permitted import refuse_misplaced
from quantui.runtime.caches.places import Place, opened_parent, refuse_mounts
from quantui.runtime.caches.processes import process_uses, recent_uses
from quantui.runtime.caches.removing import Removal
from quantui.runtime.caches.trash_notes import IT, read_trashed
from quantui.runtime.caches.tree_items import TRASH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.domain.caches.items import CacheItem

_EVERY_S = 0.1
"""Progress is told at most this often."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


def delete_tree(
    item: CacheItem, place: Place, *, to_trash: bool, batch: str, cancelled: Callable[[], bool]
) -> Iterator[DeletionEvent]:
    """Delete ``item`` or move it to the trash; ends with Deleted or Kept. Raises QuantuiError and OSError: it stays.

    It is looked at before it is moved away, and again where nobody finds it by its name any more.
    """
    refuse_misplaced(item.kind, place)
    with contextlib.ExitStack() as held:
        try:
            parent = held.enter_context(opened_parent(place))
            status = os.stat(place.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            # Somebody else was faster: what was asked for is so.
            yield Deleted(item, 0)
            return
        held.enter_context(guarded(item.kind, place))
        refuse_mounts(place.path)
        refuse_changed(item, measure_tree(place.path))
        refuse_used(recent_uses().of(place.path))
        try:
            moved = held.enter_context(
                moves.moved_away(place, item, parent, batch=batch, deleting=not to_trash)
            )
        except FileNotFoundError:
            if os.path.lexists(place.path):
                raise
            yield Deleted(item, 0)
            return
        except OSError as error:
            if error.errno not in _FULL or to_trash:
                raise
            # A full disk has no room for the note: then it goes where it is, what makes it look whole first.
            yield from _removed(item, Removal(parent, place.name), cancelled, "where it was")
            return
        it = f"{moved.folder}/{IT}"
        try:
            if not os.path.samestat(os.lstat(it), status):
                raise changed()
            refuse_changed(item, measure_tree(it))
            # Whose a run is was asked already, and of thousands of records none is worth a look at every process.
            uses = recent_uses() if item.kind is Kind.RUN else process_uses()
            refuse_used((*uses.of(it), *uses.of(place.path)))
        except BaseException:
            moves.put_back(moved, parent, place.name)
            raise
        if to_trash:
            forget_maker(place)
            yield Deleted(item, 0, files=item.files, trashed=moved.folder)
            return
        removal = Removal(moved.descriptor, IT, all_or_none=True)
        for event in _removed(item, removal, cancelled, "in the trash"):
            if isinstance(event, Kept) and removal.untouched:
                moves.put_back(moved, parent, place.name)
            if isinstance(event, Deleted):
                moves.drop_token(moved)
                forget_maker(place)
            yield event


def empty_trashed(
    item: CacheItem, place: Place, *, cancelled: Callable[[], bool]
) -> Iterator[DeletionEvent]:
    """Empty one thing of the trash; ends with Deleted or Kept. Raises as :func:`delete_tree` does."""
    refuse_misplaced(item.kind, place)
    if not os.path.lexists(place.path):
        yield Deleted(item, 0)
        return
    with moves.opened_token(place.path) as moved:
        refuse_mounts(place.path)
        found = read_trashed(place.path)
        if found is not None and not found.half:
            refuse_changed(item, measure_tree(place.path))
        refuse_used(process_uses().of(place.path))
        with contextlib.suppress(OSError):
            # On a full disk there is no room for the mark: then the note goes first, and says as much.
            moves.mark(moved, deleting=True)
        removal = Removal(moved.trash, moved.token)
        yield from _removed(item, removal, cancelled, "in the trash")
        moves.drop_token(moved)


def tidy(root: str) -> None:
    """Remove what moves into the trash of a root left that did not come to pass; nothing of it is a thing."""
    folder = f"{root}/{TRASH}"
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False) and read_trashed(entry.path) is None:
                with (
                    contextlib.suppress(OSError, QuantuiError),
                    moves.opened_token(entry.path) as moved,
                ):
                    moves.drop_token(moved)


def _removed(
    item: CacheItem, removal: Removal, cancelled: Callable[[], bool], where: str
) -> Iterator[DeletionEvent]:
    """Carry a removal out, telling how far it is; ends with Deleted or Kept."""
    told = time.monotonic()
    for _ in removal.steps(cancelled):
        now = time.monotonic()
        if now - told >= _EVERY_S:
            told = now
            yield DeletionProgress(item, removal.files, removal.freed)
    left = f"; what is left is {where}, and deleting it again goes on (quantui cache ls)"
    rest = "" if removal.untouched else left
    if removal.problem:
        yield Kept(item, f"it cannot be removed ({removal.problem}){rest}", removal.freed)
    elif removal.stopped:
        yield Kept(item, f"stopped{rest}", removal.freed)
    else:
        yield Deleted(item, removal.freed, removal.files)
