"""Progress of what a library reads or writes at one go, seen from outside: in bytes."""

from __future__ import annotations

import resource
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quantui_wire import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def reporting(total: int, done: Callable[[], int]) -> Iterator[None]:
    """Report ``done()`` of ``total`` bytes four times a second while the block runs."""
    over = threading.Event()

    def report() -> None:
        while not over.wait(0.25):
            progress(min(done(), total), total, unit="bytes")

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    progress(total, total, unit="bytes")


def resident_growth() -> Callable[[], int]:
    """Bytes this process has grown by since the call: how much of the base has been read."""
    statm = Path("/proc/self/statm")

    def resident() -> int:
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()

    start = resident()
    return lambda: max(0, resident() - start)
