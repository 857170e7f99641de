"""Renames that replace nothing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat

_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def rename_away(above: int, name: str, to: int, as_name: str) -> None:
    """Rename as ``os.rename`` does, also a folder of ours that may not be written; it keeps its rights.

    Another folder above it is written into it, which takes the right to write there (rename(2)).
    """
    try:
        rename_into_free(above, name, to, as_name)
    except PermissionError:
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
            if not mode & stat.S_IWUSR:
                make_writable(above, name)
                try:
                    rename_into_free(above, name, to, as_name)
                except OSError:
                    _set_mode(above, name, mode)
                    raise
                _set_mode(to, as_name, mode)
                return
        raise


def make_writable(above: int, name: str) -> None:
    """Give the owner all rights to a folder, and to nothing that a link leads to. Raises OSError."""
    mode = stat.S_IMODE(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    _set_mode(above, name, mode | stat.S_IRWXU)


def _set_mode(above: int, name: str, mode: int) -> None:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=above)
    try:
        # A descriptor of this kind takes no fchmod; its name in /proc leads to the very same folder.
        os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101
    finally:
        os.close(descriptor)


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
