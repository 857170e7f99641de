"""Renames that replace nothing."""

from __future__ import annotations

import ctypes
import errno
import os

_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def rename_into_free(above: int, name: str, to: int, as_name: str) -> None:
    """Rename ``name`` of the open folder ``above`` to ``as_name`` of ``to``; raises FileExistsError where that exists.

    By renameat2(2) with RENAME_NOREPLACE; where the C library or the file system has none, the place is looked at
    right before. Raises OSError as ``os.rename`` does.
    """
    call = getattr(_libc, "renameat2", None)
    if call is not None:
        if call(above, os.fsencode(name), to, os.fsencode(as_name), _NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in {errno.EINVAL, errno.ENOSYS}:
            raise OSError(number, os.strerror(number), name, None, as_name)
    try:
        os.stat(as_name, dir_fd=to, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, as_name, src_dir_fd=above, dst_dir_fd=to)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), as_name)
