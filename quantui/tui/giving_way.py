"""Long work in a thread that leaves the interface fluid."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTERVAL_S = 0.0005
"""After so long a thread lets others run that wait; Python's own is ten times that (sys.setswitchinterval)."""

_lock = threading.Lock()
_before: list[float] = []


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """While this lasts a thread that computes lets the one that draws have its turn ten times as soon.

    A key is several turns: reading it, the messages between widgets, writing the frame. Each waits for the interval
    while another thread computes.
    """
    with _lock:
        _before.append(sys.getswitchinterval())
        sys.setswitchinterval(_INTERVAL_S)
    try:
        yield
    finally:
        with _lock:
            before = _before.pop()
            if not _before:
                sys.setswitchinterval(before)
