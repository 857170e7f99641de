"""What was moved away: ``<root>/.quantui-trash/<token>/it`` with ``what.json``, which says what it was.

Moving there is one rename: a thing is in its place, whole, or it is here. What is being deleted is moved here first
and marked; a mark says that it may lack parts, and it never comes back. Whoever works on a token holds its folder's
lock (flock), which the kernel drops when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.caches.places import FOLDER_FLAGS, Place, known_place, opened_parent
from quantui.runtime.caches.renaming import rename_into_free
from quantui.runtime.caches.tree_items import TRASH

if TYPE_CHECKING:
    from collections.abc import Iterator

WHAT = "what.json"
IT = "it"
_FORMAT = 1
_LARGEST = 65536


@dataclass(frozen=True)
class Trashed:
    """A thing in the trash. ``folder``: its token's folder, its identity. ``path``: where it was (untrusted).

    ``at``: when it was moved, seconds since the epoch. ``batch`` is the same for what went together. ``half``: its
    deletion has begun, so that it may lack parts and does not come back.
    """

    folder: str
    root: str
    path: str
    kind: Kind
    name: str
    at: float
    batch: str
    half: bool


@dataclass(frozen=True)
class Moved:
    """A thing that was moved: its token's open folder (locked), and that folder's path and name."""

    descriptor: int
    trash: int
    token: str
    folder: str
    what: dict[str, Any]


def trashed_in(root: str | os.PathLike[str]) -> Iterator[Trashed]:
    """What lies in the trash of a root, the oldest first; what says nothing of itself is half deleted."""
    trash = os.path.join(os.path.realpath(root), TRASH)  # noqa: PTH118 - paths are text here
    try:
        with os.scandir(trash) as entries:
            tokens = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for token in tokens:
        found = read_trashed(os.path.join(trash, token))  # noqa: PTH118
        if found is not None:
            yield found


def read_trashed(folder: str) -> Trashed | None:
    """What a token's folder says; None where there is nothing in it: a move that did not come to pass."""
    try:
        names = set(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return None
    if not names - {WHAT, f"{WHAT}.partial"}:
        return None
    what = _read(folder)
    token = os.path.basename(folder)  # noqa: PTH119
    root = os.path.dirname(os.path.dirname(folder))  # noqa: PTH120
    path = what.get("path")
    whole = isinstance(path, str) and names == {WHAT, IT} and what.get("deleting") is False
    try:
        kind = Kind(what.get("kind", ""))
    except ValueError:
        kind, whole = Kind.TRASH, False
    at = what.get("at")
    return Trashed(
        folder=folder,
        root=root,
        path=path if isinstance(path, str) else "",
        kind=kind,
        name=str(what.get("name") or token),
        at=float(at) if isinstance(at, int | float) else _made(folder),
        batch=str(what.get("batch") or token),
        half=not whole,
    )


def last_trashed() -> tuple[Trashed, ...]:
    """What was moved to the trash last, all that went together and is still whole; () where there is nothing."""
    from quantui.runtime.caches.roots import known_roots

    roots = dict.fromkeys(os.path.realpath(root.path) for root in known_roots())
    whole = [found for root in roots for found in trashed_in(root) if not found.half]
    if not whole:
        return ()
    newest = max(whole, key=lambda found: found.at)
    return tuple(found for found in whole if found.batch == newest.batch)


def restore(thing: CacheItem | Trashed | str | os.PathLike[str]) -> Path:
    """Move a thing of the trash back to where it was; gives that path.

    ``thing``: the item, or the path of its token's folder. Raises ``trash.gone`` (exit code 5), ``trash.half``,
    ``trash.taken``, ``trash.busy`` and ``trash.no-way-back`` (3).
    """
    if isinstance(thing, CacheItem):
        folder = thing.path
    elif isinstance(thing, Trashed):
        folder = thing.folder
    else:
        folder = os.fspath(thing)
    folder = folder.removesuffix(f"/{IT}")
    with opened_token(folder) as moved:
        found = read_trashed(folder)
        if found is None:
            raise _gone(folder)
        if found.half:
            raise QuantuiError(
                "trash.half",
                f"{found.name} cannot be had back.",
                "Its deletion has begun: parts of it are gone.",
                "Empty it: quantui cache prune",
                ExitCode.DOES_NOT_FIT,
            )
        place = known_place(found.path, found.root)
        from quantui.runtime.caches.guards import guarded

        with guarded(found.kind, place), _way_back(place) as parent:
            put_back(moved, parent, place.name)
        return Path(found.path)


@contextlib.contextmanager
def opened_token(folder: str) -> Iterator[Moved]:
    """Open and hold a token's folder; raises ``trash.gone``, ``trash.busy`` and ``cache.outside``."""
    trash_path = os.path.dirname(folder)  # noqa: PTH120 - paths are text here
    root = os.path.dirname(trash_path)  # noqa: PTH120
    place = known_place(folder, root)
    if len(place.parts) != 2 or place.parts[0] != TRASH:
        raise _gone(folder)
    with contextlib.ExitStack() as opened:
        try:
            trash = opened.enter_context(opened_parent(place))
            descriptor = os.open(place.name, FOLDER_FLAGS, dir_fd=trash)
        except (FileNotFoundError, NotADirectoryError):
            raise _gone(folder) from None
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
            raise _gone(folder)
        yield Moved(descriptor, trash, place.name, place.path, _read(place.path))


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
        what = {
            "format": _FORMAT,
            "path": item.path,
            "kind": item.kind.value,
            "name": item.name,
            "at": time.time(),
            "batch": batch,
            "deleting": deleting,
        }
        moved = Moved(descriptor, trash, token, folder, what)
        try:
            _write(descriptor, what)
            os.rename(place.name, IT, src_dir_fd=parent, dst_dir_fd=descriptor)
            os.fsync(descriptor)
        except BaseException as error:
            with contextlib.suppress(OSError):
                rename_into_free(descriptor, IT, parent, place.name)
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
        rename_into_free(moved.descriptor, IT, parent, name)
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
    _write(moved.descriptor, {**moved.what, "deleting": deleting})


def drop_token(moved: Moved) -> None:
    """Remove an emptied token's folder and, when it was the last, the trash itself. What is not empty stays."""
    for name in (WHAT, f"{WHAT}.partial"):
        with contextlib.suppress(OSError):
            if IT not in os.listdir(moved.descriptor):  # noqa: PTH208
                os.unlink(name, dir_fd=moved.descriptor)
    with contextlib.suppress(OSError):
        os.rmdir(moved.token, dir_fd=moved.trash)
        os.rmdir(os.path.dirname(moved.folder))  # noqa: PTH106, PTH120


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


@contextlib.contextmanager
def _way_back(place: Place) -> Iterator[int]:
    with contextlib.ExitStack() as opened:
        try:
            parent = opened.enter_context(opened_parent(place))
        except FileNotFoundError:
            raise QuantuiError(
                "trash.no-way-back",
                f"The folder that {place.path} lay in is gone.",
                "",
                "Make it again, then: quantui cache undo",
                ExitCode.DOES_NOT_FIT,
            ) from None
        yield parent


def _write(descriptor: int, what: dict[str, Any]) -> None:
    """Write ``what.json`` whole, on the disk before it has its name."""
    partial = f"{WHAT}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600, dir_fd=descriptor), "w") as out:
        json.dump(what, out)
        out.flush()
        os.fsync(out.fileno())
    os.rename(partial, WHAT, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    os.fsync(descriptor)


def _read(folder: str) -> dict[str, Any]:
    """``what.json``; {} where it cannot be read."""
    path = os.path.join(folder, WHAT)  # noqa: PTH118
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            what = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return what if isinstance(what, dict) and what.get("format") == _FORMAT else {}


def _made(folder: str) -> float:
    try:
        return os.stat(folder).st_mtime  # noqa: PTH116
    except OSError:
        return 0.0


def _gone(folder: str) -> QuantuiError:
    return QuantuiError(
        "trash.gone",
        f"There is nothing to bring back at {folder}.",
        "It was emptied, or brought back already.",
        "Look with: quantui cache ls --kind trash",
        ExitCode.NOT_FOUND,
    )
