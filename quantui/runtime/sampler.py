"""The memory sampler: one thread that reads what the run's processes and the GPUs hold.

Ten times a second, for at most 2 % of one core with a process tree of five (benchmarks/sampler.py measures it).

RAM of the process tree is the sum of resident minus shared pages (``/proc/PID/statm``), so that libraries mapped by
several processes do not count several times; reading it costs microseconds a process, unlike PSS,
which walks page tables. GPU memory comes from NVML and covers the whole card, other processes too.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.events import MemorySample
from quantui.runtime.cgroup import CgroupLimits
from quantui.runtime.gpu_memory import open_gpu_memory

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = os.sysconf("SC_PAGE_SIZE")
_AVAILABLE = re.compile(rb"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_CGROUP_EVERY_S = 0.5
"""memory.stat has fifty lines, and to read it the kernel adds up what every core has counted."""


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


class FreeMemory:
    """RAM that may still be taken: what the kernel has available, and no more than this process's cgroup leaves."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = root / "proc/meminfo"
        self._limits = CgroupLimits(root)
        self._left: int | None = None
        self._asked = float("-inf")

    def read(self) -> int | None:
        """Bytes, None when the kernel does not say; of a cgroup as of half a second ago at most."""
        now = time.monotonic()
        if now - self._asked >= _CGROUP_EVERY_S:
            self._asked = now
            limit = self._limits.read()
            self._left = None if limit is None else limit.free_bytes
        known = [each for each in (self._available(), self._left) if each is not None]
        return min(known, default=None)

    def _available(self) -> int | None:
        try:
            with self._meminfo.open("rb") as meminfo:
                # MemAvailable is the third line.
                found = _AVAILABLE.search(meminfo.read(512))
        except OSError:
            return None
        return None if found is None else int(found[1]) * 1024


class MemorySampler:
    """Samples while it is open; :meth:`drain` gives what came since the last call."""

    def __init__(self, pids: Callable[[], list[int]], interval_s: float = 0.1) -> None:
        self._pids = pids
        self._interval = interval_s
        self._samples: deque[MemorySample] = deque(maxlen=10_000)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quantui-sampler", daemon=True)

    def start(self) -> None:
        """Begin sampling."""
        self._thread.start()

    def cpu_seconds(self) -> float:
        """CPU time that sampling has taken so far; only while it is open."""
        clock = time.pthread_getcpuclockid(self._thread.ident or 0)
        return time.clock_gettime(clock)

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
        free = FreeMemory()
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
                        ram_available_bytes=free.read(),
                        gpus=cards,
                    )
                )
