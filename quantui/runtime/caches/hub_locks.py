"""The locks that huggingface_hub holds while it downloads: ``.locks/REPO/ETAG.lock`` of a cache (file_download.py)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from quantui.runtime.caches.places import FOLDER_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST = 200
"""Locks held at once: a process may often have no more than 1024 files open."""

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def held_locks(root: str, repo: str, blobs: Iterable[str]) -> Iterator[frozenset[str]]:
    """Hold the locks of ``blobs``, names in the repository's folder ``repo``; gives those that somebody else holds.

    Never waits. The first 200 stay held, so that nobody begins to download them; give the largest first. Where there
    is no folder of locks nobody has downloaded anything, and none is made. ``ETAG.incomplete`` and
    ``ETAG.x.incomplete`` have the lock of ``ETAG``.
    """
    with contextlib.ExitStack() as opened:
        try:
            folder = os.open(f"{root}/.locks", FOLDER_FLAGS)
            opened.callback(os.close, folder)
            folder = os.open(repo, FOLDER_FLAGS, dir_fd=folder)
            opened.callback(os.close, folder)
        except OSError:
            yield frozenset()
            return
        taken: dict[str, bool] = {}
        busy: set[str] = set()
        for name in blobs:
            lock = f"{etag_of(name)}.lock"
            if lock not in taken:
                keep = len(taken) < _MOST
                taken[lock] = _take(folder, lock, opened if keep else None)
            if not taken[lock]:
                busy.add(name)
        yield frozenset(busy)


def etag_of(name: str) -> str:
    """The etag that the name of a blob, or of a part of one, begins with."""
    return name.partition(".")[0] if name.endswith(".incomplete") else name


def _take(folder: int, lock: str, opened: contextlib.ExitStack | None) -> bool:
    """Take a lock and, with ``opened``, keep it; False where somebody has it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if opened is not None:
            # As huggingface_hub makes it, for all who share the cache.
            descriptor = os.open(lock, flags | os.O_CREAT, 0o664, dir_fd=folder)
        else:
            descriptor = os.open(lock, flags, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:
        # Not ours to write: it can still be asked for.
        try:
            descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _HELD:
            return False
        # No flock there: the file itself is the lock then (filelock.SoftFileLock), and it is not to be made.
        return not _is_soft(folder, lock)
    if opened is not None:
        opened.callback(os.close, descriptor)
    else:
        os.close(descriptor)
    return True


def _is_soft(folder: int, lock: str) -> bool:
    """Whether a lock file is one of filelock's soft ones: it names its holder."""
    try:
        return os.stat(lock, dir_fd=folder, follow_symlinks=False).st_size > 0
    except OSError:
        return False
