"""The memory sampler: one thread that reads what the run's processes and the GPUs hold.

RAM of the process tree is the sum of resident minus shared pages (``/proc/PID/statm``), so that libraries mapped by
several processes do not count several times; reading it costs microseconds a process, unlike PSS,
which walks page tables. GPU memory comes from NVML and covers the whole card, other processes too.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from quantui.domain.events import MemorySample
from quantui.runtime.gpu_memory import open_gpu_memory

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree_bytes(pids: list[int]) -> int | None:
    """Private resident memory of the processes, bytes; None when none could be read."""
    total, seen = 0, False
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as statm:  # noqa: PTH123 - ten times a second
                fields = statm.read().split()
        except OSError:
            continue
        seen = True
        total += (int(fields[1]) - int(fields[2])) * _PAGE
    return total if seen else None


class MemorySampler:
    """Samples while it is open; :meth:`drain` gives what came since the last call."""

    def __init__(self, pids: Callable[[], list[int]], interval_s: float = 0.5) -> None:
        self._pids = pids
        self._interval = interval_s
        self._samples: deque[MemorySample] = deque(maxlen=10_000)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quantui-sampler", daemon=True)

    def start(self) -> None:
        """Begin sampling."""
        self._thread.start()

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def drain(self) -> list[MemorySample]:
        """Samples not given yet, oldest first."""
        found: list[MemorySample] = []
        while self._samples:
            found.append(self._samples.popleft())
        return found

    def _run(self) -> None:
        import psutil

        with open_gpu_memory() as gpus:
            while not self._stop.wait(self._interval):
                cards = tuple(
                    (card.index, card.used_bytes, card.total_bytes)
                    for card in gpus.read()
                    if card.used_bytes is not None and card.total_bytes is not None
                )
                self._samples.append(
                    MemorySample(
                        at=time.time(),
                        tree_bytes=tree_bytes(self._pids()),
                        ram_available_bytes=psutil.virtual_memory().available,
                        gpus=cards,
                    )
                )
