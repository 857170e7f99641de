"""Reading a run's ``events.jsonl`` while it grows: its events, or the state they add up to.

A record may be huge (a server held for weeks) and may hold lines that are no events (a full disk cut one off, a later
version knows more): such lines are passed over.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.events import MemorySample, from_dict
from quantui.domain.run_state import RunState, reduce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quantui.domain.events import RunEvent

EVENTS = "events.jsonl"
_CHUNK = 1 << 20


class RecordTail:
    """The events of a record that were not given yet; a line without its end waits until it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def events(self) -> Iterator[RunEvent]:
        """What came since the last call, oldest first; nothing while there is no file."""
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            file.seek(self._offset)
            rest = b""
            while data := file.read(_CHUNK):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._offset += len(line) + 1
                    event = read_event(line)
                    if event is not None:
                        yield event


class Fold:
    """The state of a run by its record; :meth:`state` reads only what is new."""

    def __init__(self, path: Path) -> None:
        self._tail = RecordTail(path)
        self._state = RunState()

    def state(self) -> RunState:
        """The state after every event that is there now."""
        state = self._state
        highest, cards, last = state.peak_tree_bytes, dict(state.peak_gpu_bytes), None
        for event in self._tail.events():
            if isinstance(event, MemorySample):
                # Nearly every line is one: only peaks and the last one matter, and copies of the state cost.
                last = event
                highest = max(highest, event.tree_bytes or 0)
                for index, used, _ in event.gpus:
                    cards[index] = max(used, cards.get(index, 0))
            else:
                state = reduce(event, state)
        self._state = replace(
            state,
            memory=last or state.memory,
            peak_tree_bytes=highest,
            peak_gpu_bytes=tuple(sorted(cards.items())),
        )
        return self._state


def read_event(line: bytes) -> RunEvent | None:
    """The event in a line of a record; None for one that is none."""
    try:
        told = json.loads(line)
        return from_dict(told) if isinstance(told, dict) else None
    except (ValueError, RecursionError):
        return None
