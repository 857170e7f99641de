"""Bytes of a file that it shares with copies made by reflink (``cp --reflink``): deleting it frees none of them.

Btrfs, XFS and a few others let files share extents. No call tells who the others are; FIEMAP says which extents
have any (Documentation/filesystems/fiemap.rst of Linux).
"""

from __future__ import annotations

import array
import os
import struct

SHARING = frozenset({"btrfs", "xfs", "bcachefs", "ocfs2", "overlay"})
"""Kinds of file systems whose files can share extents; overlay passes on what lies below."""

LEAST = 1 << 20
"""Bytes on disk below which a file is not looked into: opening it costs more than its blocks are worth."""

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_LAST, _SHARED = 0x1, 0x2000
_AT_ONCE = 256
_MOST_CALLS = 4096


def shared_extents(path: str, allocated: int) -> int:
    """Bytes on disk, at most ``allocated``, of the file at ``path`` that others hold too; 0 where nobody says."""
    try:
        import fcntl

        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (ImportError, OSError, ValueError):
        return 0
    shared = start = 0
    try:
        for _ in range(_MOST_CALLS):
            room = array.array("B", bytes(_HEAD.size + _AT_ONCE * _EXTENT.size))
            _HEAD.pack_into(room, 0, start, (1 << 64) - 1 - start, 0, 0, _AT_ONCE, 0)
            fcntl.ioctl(fd, _FS_IOC_FIEMAP, room)
            mapped = _HEAD.unpack_from(room)[3]
            flags = _LAST
            for number in range(mapped):
                extent = _EXTENT.unpack_from(room, _HEAD.size + number * _EXTENT.size)
                logical, length, flags = extent[0], extent[2], extent[5]
                start = logical + length
                shared += length if flags & _SHARED else 0
            if flags & _LAST:
                break
    except OSError:
        return 0
    finally:
        os.close(fd)
    # Compressed extents tell their length as it is read, not as it lies on the disk.
    return min(shared, allocated)
