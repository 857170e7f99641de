"""Every memory sample of a run, or of a machine that is looked at, drawn for whatever width there is."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.events import MemorySample, StepPhase, StepStarted

if TYPE_CHECKING:
    from quantui.domain.events import RunEvent

RAM = "RAM"
"""The key of the run's own processes in RAM; GPUs have their index."""


@dataclass(frozen=True)
class Mark:
    """A phase that begins ``at`` (seconds since the epoch)."""

    at: float
    label: str


@dataclass
class Series:
    """Bytes in use over time, oldest first. ``total``: what the device has; None: not known."""

    times: array[float] = field(default_factory=lambda: array("d"))
    used: array[float] = field(default_factory=lambda: array("d"))
    total: int | None = None
    peak: int = 0

    def add(self, at: float, used: int, total: int | None) -> None:
        """One sample; ``at`` may not go back."""
        self.times.append(at)
        self.used.append(float(used))
        self.total = total if total is not None else self.total
        self.peak = max(self.peak, used)

    def columns(self, begin: float, end: float, width: int) -> list[float | None]:
        """The highest use in each of ``width`` equal spans of time; a span without a sample has the one before.

        None stands before the first sample and after the last.
        """
        found: list[float | None] = []
        span = max(end - begin, 1e-9) / max(width, 1)
        last: float | None = None
        place = bisect_left(self.times, begin)
        if place:
            last = self.used[place - 1]
        for column in range(width):
            stop = bisect_left(self.times, begin + (column + 1) * span, place)
            if stop > place:
                found.append(max(self.used[place:stop]))
                last = self.used[stop - 1]
            elif place >= len(self.times) and begin + column * span > self._newest():
                found.append(None)
            else:
                found.append(last)
            place = stop
        return found

    def _newest(self) -> float:
        return self.times[-1] if self.times else float("-inf")


class MemoryHistory:
    """Series by device, and the phases. One thread writes, another may read."""

    def __init__(self) -> None:
        self._series: dict[str | int, Series] = {}
        self.marks: list[Mark] = []
        self.ram_total: int | None = None

    def heard(self, event: RunEvent) -> None:
        """Take in what an event tells of memory or of phases; others are passed over."""
        if isinstance(event, MemorySample):
            if event.tree_bytes is not None:
                self.series(RAM).add(event.at, event.tree_bytes, self.ram_total)
            for index, used, total in event.gpus:
                self.series(index).add(event.at, used, total)
        elif isinstance(event, StepStarted):
            self.mark(event.at, event.step)
        elif isinstance(event, StepPhase):
            self.mark(event.at, event.phase)

    def mark(self, at: float, label: str) -> None:
        """A phase begins."""
        if not self.marks or self.marks[-1].label != label:
            self.marks.append(Mark(at, label))

    def series(self, key: str | int) -> Series:
        """The series of a device, empty at first."""
        return self._series.setdefault(key, Series())

    def keys(self) -> tuple[str | int, ...]:
        """The devices that were sampled: GPUs by index, then the RAM."""
        gpus = sorted(key for key in tuple(self._series) if isinstance(key, int))
        return (*gpus, *(key for key in tuple(self._series) if isinstance(key, str)))
