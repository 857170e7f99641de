"""What could go when a disk has too little room. Nothing is deleted here, nor anywhere unasked."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.room import Room, least_regretted, room_fix, room_lines

if TYPE_CHECKING:
    from quantui.domain.errors import QuantuiError

__all__ = ["Room", "device_of", "told_what_could_go", "what_could_go"]

_GIVEN_UP = frozenset(Kind) - {Kind.RUN, Kind.MEASURED, Kind.FOLDER}
"""Kinds that are looked for: the others are small, or never given up for room."""


def device_of(folder: str | os.PathLike[str]) -> int | None:
    """The device number of the file system that ``folder`` is on, or would be made on."""
    path = Path(folder).absolute()
    for there in (path, *path.parents):
        with contextlib.suppress(OSError):
            return there.stat().st_dev
    return None


def what_could_go(
    folder: str | os.PathLike[str], needed_bytes: int, *, within_s: float = 3.0
) -> Room:
    """How much room there is for ``needed_bytes`` in ``folder``, and what on the same file system could go.

    The candidates come in the order of :func:`~quantui.domain.caches.regret.by_regret` until they are enough; none
    where there is enough already. Looking ends after ``within_s`` seconds. Never raises: what cannot be looked at is
    no candidate.
    """
    free = _free_bytes(Path(folder))
    room = Room(str(folder), free, needed_bytes)
    device = device_of(folder)
    if not room.short or device is None:
        return room
    items, complete = _look(within_s)

    def here(item: CacheItem) -> bool:
        try:
            return os.lstat(item.path).st_dev == device
        except OSError:
            return False

    found = least_regretted(items, room.short, now=time.time(), here=here)
    return replace(room, candidates=found, complete=complete)


def told_what_could_go(
    error: QuantuiError,
    folder: str | os.PathLike[str],
    needed_bytes: int,
    *,
    within_s: float = 3.0,
) -> QuantuiError:
    """``error`` of a disk with too little room, with what could go in its details and how in its fix."""
    room = what_could_go(folder, needed_bytes, within_s=within_s)
    lines = room_lines(room, time.time())
    if not room.short or any(line in error.detail for line in lines):
        # There is enough now, or it was said where the error came from.
        return error
    error.detail = (*error.detail, *lines)
    error.fix = f"{error.fix} {room_fix(room)}".strip()
    return error


def _free_bytes(folder: Path) -> int:
    for there in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(there).free
    return 0


def _look(within_s: float) -> tuple[dict[str, CacheItem], bool]:
    """What was found in time, by path, and whether that is all.

    In a thread of its own: a file system that does not answer holds nobody up.
    """
    from quantui.runtime.caches.inventory import scan

    stop, lock = threading.Event(), threading.Lock()
    found: dict[str, CacheItem] = {}
    whole = threading.Event()

    def look() -> None:
        with contextlib.suppress(OSError):
            for item in scan(kinds=_GIVEN_UP, stop=stop.is_set):
                if isinstance(item, CacheItem):
                    with lock:
                        found[item.path] = item
            if not stop.is_set():
                whole.set()

    thread = threading.Thread(target=look, name="room", daemon=True)
    thread.start()
    thread.join(within_s)
    stop.set()
    with lock:
        return dict(found), whole.is_set()
