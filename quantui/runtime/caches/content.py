"""Read files to their end and compare their hashes, without pushing anything else out of the page cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantui.domain.caches.verification import Finding, Soundness
from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

Algorithm = Literal["sha256", "git"]
"""``git``: git's name of a file, SHA-1 of ``blob LENGTH\\0`` and the content; of one in LFS, that of its pointer."""

_BLOCK = 4 << 20
_own = threading.local()
_NOT_CACHED = {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Stopped(Exception):  # noqa: N818 - not an error: the reader was asked to stop
    """Raised out of :func:`digests_of` when the check is cancelled."""


@dataclass(frozen=True)
class Expected:
    """A file and what it should be. ``shown``: its name within the thing (untrusted).

    ``digests``: any of these, lower-case hex; none: only its ``size`` is known. ``size`` None: not known either.
    """

    path: str
    shown: str
    algorithm: Algorithm = "sha256"
    digests: frozenset[str] = frozenset()
    size: int | None = None


def digests_of(path: str, algorithm: Algorithm, advance: Callable[[int], None]) -> frozenset[str]:
    """The names in hex that a regular file's content has; ``git`` gives two, for nothing tells which was meant.

    ``advance`` gets the bytes read each time, and may raise to stop. What was not in the page cache before is dropped
    from it again; what was stays. Raises OSError.
    """
    descriptor = _opened(path)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        # Read ahead would bring in pages that are then taken for somebody else's; blocks are large enough.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        content, blob = hashlib.sha256(), _git(found.st_size)
        offset, view = 0, _buffer()
        while count := _read(descriptor, view, offset):
            content.update(view[:count])
            if algorithm == "git":
                blob.update(view[:count])
            offset += count
            advance(count)
    finally:
        os.close(descriptor)
    if algorithm == "sha256":
        return frozenset({content.hexdigest()})
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{content.hexdigest()}\nsize {offset}\n"
    named = _git(len(pointer))
    named.update(pointer.encode())
    return frozenset({blob.hexdigest(), named.hexdigest()})


def _opened(path: str) -> int:
    """Open to read; where that is allowed, without a mark that says it was used."""
    # Opening a pipe would wait for its other end.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        # Only a file's owner may ask for that (open(2)).
        return os.open(path, flags)


def _git(length: int) -> hashlib._Hash:
    return hashlib.sha1(b"blob %d\0" % length, usedforsecurity=False)


def _buffer() -> memoryview:
    """This thread's buffer: an environment has tens of thousands of small files, each of which would clear one."""
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(bytearray(_BLOCK))
    buffer: memoryview = _own.buffer
    return buffer


def _read(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill ``view`` as far as the file goes; pages that this brought into memory leave it again."""
    cached = 0
    if hasattr(os, "RWF_NOWAIT"):
        try:
            cached = os.preadv(descriptor, [view], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in _NOT_CACHED:
                raise
    count = cached
    while count < len(view) and (more := os.preadv(descriptor, [view[count:]], offset + count)):
        count += more
    if count > cached:
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset + cached, count - cached, os.POSIX_FADV_DONTNEED)
    return count


def check(expected: Expected, digests: Callable[[Expected], frozenset[str]]) -> Finding | None:
    """What is wrong with a file; None when it is what it should be, or nothing but its presence can be said.

    ``digests`` reads it, and is asked only where there is something to compare with.
    """
    shown = expected.shown
    try:
        found = os.stat(expected.path)  # noqa: PTH116 - names need not be UTF-8
        if not stat.S_ISREG(found.st_mode):
            return Finding("is not a file", shown)
        if expected.size is not None and found.st_size != expected.size:
            return Finding(
                f"has {found.st_size:,} bytes and should have {expected.size:,}{_holes(found)}",
                shown,
            )
        if not expected.digests:
            return None
        if digests(expected) & expected.digests:
            return None
        return Finding(f"has other content than it should{_holes(found)}", shown)
    except OSError as error:
        return told(error, shown)


def told(error: OSError, shown: str) -> Finding:
    """What a file says of its thing that could not be read."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return Finding("is missing", shown, counts=Soundness.INCOMPLETE)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Finding(
            "may not be read by this user", shown, "run it as its owner", Soundness.UNKNOWN
        )
    if error.errno == errno.ELOOP:
        return Finding("is a link that leads to itself", shown)
    return Finding(f"cannot be read: {error.strerror or error}", shown, "look at the disk's health")


def _holes(found: os.stat_result) -> str:
    """Says where a file has holes: bytes that were never written read as zeros."""
    allocated = found.st_blocks * 512
    if allocated + 4096 >= found.st_size:
        return ""
    return f"; only {format_bytes(allocated)} of it was ever written to the disk"
