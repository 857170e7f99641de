"""The memory of the whole machine, sampled while somebody looks: GPUs through NVML, RAM as this process may use it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from quantui.tui.memory_history import HOST_RAM, MemoryHistory

INTERVAL_S = 0.1
"""Seconds between samples."""


class LiveMemory:
    """A thread that fills :attr:`history`; open it with the screen that shows it, close it with the screen.

    Nothing it meets is raised: a GPU that stops answering is marked as lost in its series, and whatever ends the
    sampling altogether is in :attr:`problem`, in words.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.history = MemoryHistory()
        self.problem = ""
        self._interval = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; again: nothing happens."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="quantui-live", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ask the thread to end; it is not waited for, since NVML may take its time."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        """Whether it is sampling."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._sample()
        except Exception as error:  # noqa: BLE001 - a graph is no reason for the wizard to fall
            self.problem = f"{type(error).__name__}: {error}"

    def _sample(self) -> None:
        from quantui.runtime.gpu_memory import open_gpu_memory
        from quantui.runtime.probe_host import read_ram

        root = Path("/")
        with open_gpu_memory() as gpus:
            while not self._stop.is_set():
                now = time.time()
                for card in gpus.read():
                    series = self.history.series(card.index)
                    if card.used_bytes is None:
                        series.lose(now)
                    else:
                        series.add(now, card.used_bytes, card.total_bytes)
                ram = read_ram(root)
                if ram.total_bytes is not None and ram.available_bytes is not None:
                    used = max(ram.total_bytes - ram.available_bytes, 0)
                    self.history.series(HOST_RAM).add(now, used, ram.total_bytes)
                self._stop.wait(self._interval)
