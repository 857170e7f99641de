"""Who holds a lock file now, so that what is being made is not taken for a leftover."""

from __future__ import annotations

import fcntl
import os
import re
from typing import TYPE_CHECKING

from quantui.domain.caches.items import ProcessUse

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r"^\d+: FLOCK +\S+ +\S+ (?P<pid>-?\d+) \S+:\S+:(?P<inode>\d+) ", re.MULTILINE)
"""proc(5), ``/proc/locks``: kind, mode, process, device and inode of the file."""


def is_held(lock: Path) -> bool:
    """Whether another process holds the lock. It is asked for shared, for an instant: its waiters ask again anyway."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def maker(lock: Path) -> ProcessUse | None:
    """The process that holds the lock; None where nobody does. One that cannot be named has the number 0."""
    if not is_held(lock):
        return None
    pid = _holder(lock)
    return ProcessUse(pid, process_name(pid) if pid else "another process", "is making it")


def process_name(pid: int) -> str:
    """As the kernel has it (untrusted)."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().strip() or "?"
    except OSError:
        return "?"


def _holder(lock: Path) -> int:
    try:
        inode = str(lock.stat().st_ino)
        with open("/proc/locks", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            found = [one for one in _LINE.finditer(file.read()) if one["inode"] == inode]
    except OSError:
        return 0
    # -1 stands for a lock of the kernel's own, 0 for a process that this one may not see.
    return max((int(one["pid"]) for one in found), default=0)
