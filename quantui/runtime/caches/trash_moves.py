"""Moves into a root's trash and back: one rename, of a thing that is whole, by descriptors.

Whoever works on a token holds its folder's lock (flock), which the kernel drops when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.caches.places import FOLDER_FLAGS, Place, known_place, opened_parent
from quantui.runtime.caches.renaming import rename_away
from quantui.runtime.caches.trash_notes import FORMAT, IT, WHAT, read_note, write_note
from quantui.runtime.caches.tree_items import TRASH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.caches.items import CacheItem


@dataclass(frozen=True)
class Moved:
    """A thing that was moved: its token's open folder (locked), and that folder's path and name."""

    descriptor: int
    trash: int
    token: str
    folder: str
    what: dict[str, Any]


@contextlib.contextmanager
def opened_token(folder: str) -> Iterator[Moved]:
    """Open and hold a token's folder; raises ``trash.gone``, ``trash.busy`` and ``cache.outside``."""
    trash_path = os.path.dirname(folder)  # noqa: PTH120 - paths are text here
    root = os.path.dirname(trash_path)  # noqa: PTH120
    place = known_place(folder, root)
    if len(place.parts) != 2 or place.parts[0] != TRASH:
        raise gone(folder)
    with contextlib.ExitStack() as opened:
        try:
            trash = opened.enter_context(opened_parent(place))
            descriptor = os.open(place.name, FOLDER_FLAGS, dir_fd=trash)
        except (FileNotFoundError, NotADirectoryError):
            raise gone(folder) from None
        opened.callback(os.close, descriptor)
        if not _hold(descriptor):
            raise QuantuiError(
                "trash.busy",
                f"Another process is working on {folder}.",
                "It deletes it, or brings it back.",
                "Wait until it is done.",
                ExitCode.DOES_NOT_FIT,
            )
        if not _still(trash, place.name, descriptor):
            raise gone(folder)
        yield Moved(descriptor, trash, place.name, place.path, read_note(place.path))


@contextlib.contextmanager
def moved_away(
    place: Place, item: CacheItem, parent: int, *, batch: str, deleting: bool
) -> Iterator[Moved]:
    """Move a thing of the open folder ``parent`` to the trash of its root, and hold it there.

    ``deleting``: it is marked before it is moved. Raises ``trash.elsewhere`` where it lies on another file system
    than its root, OSError for all else; it is in its place then.
    """
    with contextlib.ExitStack() as opened:
        trash, token, descriptor = _new_token(place.root, opened)
        folder = os.path.join(place.root, TRASH, token)  # noqa: PTH118
        what = _what(item, batch, deleting=deleting)
        moved = Moved(descriptor, trash, token, folder, what)
        try:
            write_note(descriptor, what)
            rename_away(parent, place.name, descriptor, IT)
            os.fsync(descriptor)
        except BaseException as error:
            with contextlib.suppress(OSError):
                rename_away(descriptor, IT, parent, place.name)
            drop_token(moved)
            if isinstance(error, OSError) and error.errno in {errno.EXDEV, errno.EBUSY}:
                raise QuantuiError(
                    "trash.elsewhere",
                    f"{item.path} lies on another file system than {place.root}.",
                    "It cannot be moved away whole before it is deleted.",
                    "Delete it by hand, or add the folder that it lies in.",
                    ExitCode.DOES_NOT_FIT,
                ) from None
            raise
        yield moved


def put_back(moved: Moved, parent: int, name: str) -> None:
    """Rename what was moved to ``name`` of the open folder ``parent``, and drop its token.

    Raises ``trash.taken`` where something else is there; it stays in the trash then, and can be had back later.
    """
    try:
        rename_away(moved.descriptor, IT, parent, name)
    except FileExistsError:
        mark(moved, deleting=False)
        raise QuantuiError(
            "trash.taken",
            f"There is another {name} in its place now.",
            f"It is in {moved.folder}.",
            "Move the other away, then: quantui cache undo",
            ExitCode.DOES_NOT_FIT,
        ) from None
    drop_token(moved)


def mark(moved: Moved, *, deleting: bool) -> None:
    """Say whether its deletion has begun; on the disk before this returns."""
    write_note(moved.descriptor, {**moved.what, "deleting": deleting})


def drop_token(moved: Moved) -> None:
    """Remove an emptied token's folder and, when it was the last, the trash itself. What is not empty stays."""
    for name in (WHAT, f"{WHAT}.partial"):
        with contextlib.suppress(OSError):
            if IT not in os.listdir(moved.descriptor):  # noqa: PTH208
                os.unlink(name, dir_fd=moved.descriptor)
    with contextlib.suppress(OSError):
        os.rmdir(moved.token, dir_fd=moved.trash)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(moved.folder))  # noqa: PTH106, PTH120


def gone(folder: str) -> QuantuiError:
    """The error for a token that is not there, or has nothing to bring back."""
    return QuantuiError(
        "trash.gone",
        f"There is nothing to bring back at {folder}.",
        "It was emptied, or brought back already.",
        "Look with: quantui cache ls --kind trash",
        ExitCode.NOT_FOUND,
    )


def _what(item: CacheItem, batch: str, *, deleting: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "path": item.path,
        "kind": item.kind.value,
        "name": item.name,
        "at": time.time(),
        "batch": batch,
        "deleting": deleting,
    }


def _new_token(root: str, opened: contextlib.ExitStack) -> tuple[int, str, int]:
    """A new folder in the trash, held: the trash's descriptor, the folder's name and descriptor."""
    top = os.open(root, FOLDER_FLAGS)
    opened.callback(os.close, top)
    for _ in range(20):
        token = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        # Another process may find the trash, or this folder, empty and tidy it away between two of these calls.
        try:
            trash = _opened_trash(top, root)
            try:
                os.mkdir(token, 0o700, dir_fd=trash)
                descriptor = os.open(token, FOLDER_FLAGS, dir_fd=trash)
            except OSError:
                os.close(trash)
                raise
        except (FileNotFoundError, FileExistsError):
            continue
        if _hold(descriptor) and _still(trash, token, descriptor):
            opened.callback(os.close, trash)
            opened.callback(os.close, descriptor)
            return trash, token, descriptor
        os.close(descriptor)
        os.close(trash)
    raise OSError(errno.EBUSY, "other processes keep tidying the trash away", TRASH)


def _opened_trash(top: int, root: str) -> int:
    """The trash of a root, made where there is none: for all who may write to the root, as /tmp is."""
    with contextlib.suppress(FileExistsError):
        shared = os.fstat(top).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        os.mkdir(TRASH, 0o700, dir_fd=top)
        if shared:
            descriptor = os.open(TRASH, FOLDER_FLAGS, dir_fd=top)
            try:
                os.fchmod(descriptor, 0o1700 | shared | shared >> 1 | shared << 1)
            finally:
                os.close(descriptor)
    try:
        return os.open(TRASH, FOLDER_FLAGS, dir_fd=top)
    except NotADirectoryError:
        raise QuantuiError(
            "trash.no-folder",
            f"{root}/{TRASH} is no folder.",
            "What is deleted is moved there first, and never through a link.",
            "Move it away.",
            ExitCode.DOES_NOT_FIT,
        ) from None


def _hold(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks: nobody else can hold it either.
        return error.errno not in {errno.EWOULDBLOCK, errno.EAGAIN}
    return True


def _still(above: int, name: str, descriptor: int) -> bool:
    """Whether the open folder still has its name."""
    try:
        there = os.stat(name, dir_fd=above, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
