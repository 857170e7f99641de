"""Every memory sample of a run, or of a machine that is looked at, drawn for whatever width there is."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.events import RunEvent

RAM = "RAM"
"""The key of the run's own processes in RAM; GPUs have their index."""
HOST_RAM = "RAM of the machine"
"""The key of all RAM in use, by whomever."""

MOST_SAMPLES = 40_000
"""A series holds at most this many, 640 kB: over an hour at ten a second as they came, older ones thinned."""


@dataclass(frozen=True)
class Mark:
    """A phase that begins ``at`` (seconds since the epoch)."""

    at: float
    label: str


class Series:
    """Bytes in use over time, oldest first. ``total``: what the device has; None: not known.

    Old samples are thinned: of each of equally long spans only the highest use stays, dated as the span's first
    sample, so that no peak is ever lost. ``lost_at``: since when the device does not answer; None: it does.
    """

    def __init__(self) -> None:
        # Times, uses, and how many of the oldest stand for a span each: one tuple, as thinning replaces them all
        # while another thread may read.
        self._samples: tuple[array[float], array[float], int] = (array("d"), array("d"), 0)
        self.total: int | None = None
        self.peak = 0
        self.lost_at: float | None = None

    def __len__(self) -> int:
        return len(self._samples[0])

    @property
    def begin(self) -> float | None:
        """The time of the first sample; None without one."""
        times = self._samples[0]
        return times[0] if times else None

    @property
    def end(self) -> float | None:
        """The time of the newest sample; None without one."""
        times = self._samples[0]
        return times[-1] if times else None

    @property
    def now(self) -> int | None:
        """The newest use; None before the first sample and of a lost device."""
        times, used, _ = self._samples
        return int(used[len(times) - 1]) if times and self.lost_at is None else None

    def add(self, at: float, used: int, total: int | None) -> None:
        """One sample; ``at`` may not go back."""
        # The use first: a reader looks at as many uses as there are times.
        self._samples[1].append(float(used))
        self._samples[0].append(at)
        self.total = total if total is not None else self.total
        self.peak = max(self.peak, used)
        self.lost_at = None
        if len(self) > MOST_SAMPLES:
            self._thin()

    def lose(self, at: float) -> None:
        """The device stopped answering; one that never answered is not lost but unknown."""
        if len(self) and self.lost_at is None:
            self.lost_at = at

    def columns(self, begin: float, end: float, width: int) -> list[float | None]:
        """The highest use in each of ``width`` equal spans of time; a span without a sample has the one before.

        None stands before the first sample and after the last.
        """
        times, used, thinned = self._samples
        count = len(times)
        newest = times[count - 1] if count else float("-inf")
        span = max(end - begin, 1e-9) / max(width, 1)
        found: list[float | None] = []
        place = bisect_left(times, begin, 0, count)
        last: float | None = used[place - 1] if place else None
        for column in range(width):
            stop = bisect_left(times, begin + (column + 1) * span, place, count)
            if stop > place:
                highest = max(used[place:stop])
                # What a thinned sample stands for reaches into the span after its own.
                holds = last is not None and place <= thinned
                found.append(max(highest, last) if holds and last is not None else highest)
                last = used[stop - 1]
            elif place >= count and begin + column * span > newest:
                found.append(None)
            else:
                found.append(last)
            place = stop
        return found

    def _thin(self) -> None:
        """Halve the samples: the newest quarter stays, the rest shrinks to a quarter of the limit.

        Spans begin at multiples of a power of two seconds, so that thinning again joins whole spans.
        """
        old_times, old_used, _ = self._samples
        kept = MOST_SAMPLES // 4
        old = len(old_times) - kept
        length = old_times[old - 1] - old_times[0]
        span = 2.0**-4
        while length / span > kept - 2:
            span *= 2
        times, used = array("d"), array("d")
        at = None
        for place in range(old):
            here = old_times[place] // span
            if here == at:
                used[-1] = max(used[-1], old_used[place])
            else:
                times.append(old_times[place])
                used.append(old_used[place])
                at = here
        thinned = len(times)
        times.extend(old_times[old:])
        used.extend(old_used[old:])
        self._samples = (times, used, thinned)


class MemoryHistory:
    """Series by device, and the phases. One thread writes, another may read."""

    def __init__(self) -> None:
        self._series: dict[str | int, Series] = {}
        self.marks: list[Mark] = []
        self.ram_total: int | None = None

    def heard(self, event: RunEvent) -> None:
        """Take in what an event tells of memory or of phases; others are passed over."""
        # Not at the top: the first frame has a history to draw, but no run whose events it would need.
        from quantui.domain.events import MemorySample, StepPhase, StepStarted

        if isinstance(event, MemorySample):
            if event.tree_bytes is not None:
                self.series(RAM).add(event.at, event.tree_bytes, self.ram_total)
            for index, used, total in event.gpus:
                self.series(index).add(event.at, used, total)
            answering = {index for index, _, _ in event.gpus}
            for key, series in tuple(self._series.items()):
                if isinstance(key, int) and key not in answering:
                    series.lose(event.at)
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
