"""Which memory samples a run's record keeps: all of them while a step works, few while a server is only held.

A server may be held for weeks, and ten samples a second of a memory that does not change would fill the disk. What is
left out changes no state: before any other event, and at the end, the peaks and the last sample are written after all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantui.domain.events import (
    MemorySample,
    RunEvent,
    ServerReady,
    StepFailed,
    StepFinished,
    StepStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHANGE = 0.005
"""Of the total of RAM or of a GPU: what changed by less looks the same in a graph."""
EVERY_S = 10.0
"""An unchanged memory is recorded so often: that it was still so."""


class RecordedSamples:
    """Decides, event by event, what is written; ``ram_total``: bytes of the machine's RAM."""

    def __init__(self, ram_total: int | None = None) -> None:
        self._total = ram_total or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._ready = False
        self._step: str | None = None
        self._written: MemorySample | None = None
        self._peaks: dict[int | None, int] = {}
        self._held_back: dict[int | None, MemorySample] = {}
        self._last: MemorySample | None = None

    def admit(self, event: RunEvent) -> Iterator[RunEvent]:
        """What to write now that ``event`` has come, in order of time."""
        if not isinstance(event, MemorySample):
            yield from self.rest()
            self._follow(event)
            yield event
        elif self._held and not self._news(event):
            self._hold_back(event)
        else:
            for key in self._note_peaks(event):
                self._held_back.pop(key, None)
            self._last = None
            yield from self.rest()
            self._written = event
            yield event

    def rest(self) -> list[MemorySample]:
        """What was held back and still counts: the highest samples, and the last one."""
        found = {id(one): one for one in self._held_back.values()}
        if self._last is not None:
            found[id(self._last)] = self._written = self._last
        self._held_back, self._last = {}, None
        return sorted(found.values(), key=lambda sample: sample.at)

    @property
    def _held(self) -> bool:
        """Whether a server answers and no step works."""
        return self._ready and self._step is None

    def _follow(self, event: RunEvent) -> None:
        if isinstance(event, ServerReady):
            self._ready = True
        elif isinstance(event, StepStarted):
            self._step = event.step
        elif isinstance(event, StepFinished) or (isinstance(event, StepFailed) and event.final):
            self._step = None

    def _news(self, sample: MemorySample) -> bool:
        before = self._written
        if before is None or sample.at - before.at >= EVERY_S or sample.at < before.at:
            return True
        gpus = {index: used for index, used, _ in before.gpus}
        if gpus.keys() != {index for index, _, _ in sample.gpus}:
            return True
        pairs = [
            (sample.tree_bytes, before.tree_bytes, self._total),
            (sample.ram_available_bytes, before.ram_available_bytes, self._total),
            *((used, gpus[index], total) for index, used, total in sample.gpus),
        ]
        return any(_differ(now, then, total) for now, then, total in pairs)

    def _hold_back(self, sample: MemorySample) -> None:
        self._last = sample
        for key in self._note_peaks(sample):
            self._held_back[key] = sample

    def _note_peaks(self, sample: MemorySample) -> list[int | None]:
        """What ``sample`` is the highest of: GPU indices, and None for the RAM of the run's processes."""
        values: Iterable[tuple[int | None, int]] = [
            (None, sample.tree_bytes or 0),
            *((index, used) for index, used, _ in sample.gpus),
        ]
        highest = [(key, value) for key, value in values if value > self._peaks.get(key, -1)]
        self._peaks.update(highest)
        return [key for key, _ in highest]


def _differ(now: int | None, then: int | None, total: int) -> bool:
    if now is None or then is None:
        return (now is None) != (then is None)
    return abs(now - then) >= CHANGE * total
