"""The world in the pictures: a home of its own at a fixed place, a clock that stands, disks of a fixed size.

Importing this module changes nothing; :func:`enter` starts the program anew in that world.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
HOME = Path("/tmp/you")
"""Paths are part of the pictures, so that the place is fixed; a lock keeps two programs from sharing it."""
LOCK = Path("/tmp/quantui-pictures.lock")
_ENTERED = "QUANTUI_PICTURES"
_KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")

NOW = 1_795_310_000.0
"""The pictures' time: 2026-11-22 01:13 UTC."""

_clock = {"at": NOW}
_Usage = namedtuple("_Usage", "total used free")


def enter() -> None:
    """Go on in a process whose environment holds nothing of the user's; returns there."""
    if os.environ.get(_ENTERED) == "1":
        return
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    ours = {
        _ENTERED: "1",
        "HOME": str(HOME),
        "QUANTUI_HOME": str(HOME / "quantui"),
        "HF_HOME": str(HOME / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TZ": "UTC",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "TEXTUAL_ANIMATIONS": "none",
        "PYTHONHASHSEED": "0",
        # Its default is in the machine's folder of temporary files.
        "TORCHINDUCTOR_CACHE_DIR": str(HOME / "inductor"),
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], {**kept, **ours})


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """An empty home for as long as this lasts, with the clock standing; it is the current folder too."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        before = Path.cwd()
        os.chdir(HOME)
        clock, disk = time.time, shutil.disk_usage
        stand_still(NOW)
        time.time = _now
        shutil.disk_usage = lambda _: _Usage(1999307276288, 1187117031424, 812190244864)  # type: ignore[assignment]
        try:
            yield HOME
        finally:
            time.time, shutil.disk_usage = clock, disk
            os.chdir(before)
            shutil.rmtree(HOME, ignore_errors=True)


def stand_still(at: float) -> None:
    """It is ``at`` seconds since the epoch from now on. What waits uses the monotonic clock and goes on waiting."""
    _clock["at"] = at


def _now() -> float:
    # One function for all pictures: a screen may have kept it.
    return _clock["at"]
