"""Reading a run's ``events.jsonl`` while it grows: its events, or the state they add up to.

A record may be huge (a server held for weeks) and may hold lines that are no events (a full disk cut one off, a later
version knows more): such lines are passed over.
"""

from __future__ import annotations

import json
import re
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
        for line in self.lines():
            event = read_event(line)
            if event is not None:
                yield event

    def lines(self) -> Iterator[bytes]:
        """The same as they are written."""
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
                    yield line


_SAMPLE = (b'{"type": "memory", ', b"]}")
_TREE = re.compile(rb'"tree_bytes": (\d+)')
_GPU = re.compile(rb"\[(\d+), (\d+), \d+\]")


class Fold:
    """The state of a run by its record; :meth:`state` reads only what is new."""

    def __init__(self, path: Path) -> None:
        self._tail = RecordTail(path)
        self._state = RunState()

    def state(self) -> RunState:
        """The state after every event that is there now; a second for 250,000 lines, a month of serving."""
        state = self._state
        highest, cards = state.peak_tree_bytes, dict(state.peak_gpu_bytes)
        last: bytes | None = None
        for line in self._tail.lines():
            if line.startswith(_SAMPLE[0]) and line.endswith(_SAMPLE[1]):
                # Nearly every line is one, and only peaks and the last one matter: none but that is parsed whole.
                last = line
                if (tree := _TREE.search(line)) and int(tree[1]) > highest:
                    highest = int(tree[1])
                for index, used in _GPU.findall(line):
                    if int(used) > cards.get(int(index), -1):
                        cards[int(index)] = int(used)
            elif (event := read_event(line)) is not None:
                state = reduce(event, state)
        for gpu, highest_used in state.peak_gpu_bytes:
            cards[gpu] = max(highest_used, cards.get(gpu, 0))
        memory = None if last is None else read_event(last)
        self._state = replace(
            state,
            memory=memory if isinstance(memory, MemorySample) else state.memory,
            peak_tree_bytes=max(highest, state.peak_tree_bytes),
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
