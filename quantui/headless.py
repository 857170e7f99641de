"""Running a plan without a screen: events as lines for people, or as JSON for programs."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from quantui.domain.events import (
    Answered,
    LogLine,
    Notice,
    RunEvent,
    ServerReady,
    StepFailed,
    StepFinished,
    StepReused,
    StepStarted,
    to_dict,
)
from quantui.domain.formatting import format_bytes, format_seconds, hanging
from quantui.domain.run_state import RunState, reduce
from quantui.domain.run_words import figure_rows, figure_words, progress_words
from quantui.domain.terminal_text import one_line, sanitize
from quantui.runtime.recorded_samples import RecordedSamples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console


class Listener(Protocol):
    """Told of every event with the state after it."""

    def heard(self, event: RunEvent, state: RunState) -> None:
        """Show one event."""

    def close(self) -> None:
        """The run is over."""


class JsonLines:
    """Events as JSON lines on stdout, those of the record; log lines are in the run's folder."""

    def __init__(self) -> None:
        self._samples = RecordedSamples()

    def heard(self, event: RunEvent, state: RunState) -> None:
        """One line an event; memory that does not change is told as rarely as it is recorded."""
        del state
        if not isinstance(event, LogLine):
            self._print(self._samples.admit(event))

    def close(self) -> None:
        """Tell the last of what was held back."""
        self._print(self._samples.rest())

    def _print(self, events: Iterable[RunEvent]) -> None:
        for event in events:
            sys.stdout.write(json.dumps(to_dict(event)) + "\n")
        sys.stdout.flush()


_LIVING_S = 0.2
_LOGGED_S = 30.0
"""Seconds between two progress lines where there is no terminal: hours of work are not silent in a log."""


class Lines:
    """Events for a person: a line for each thing that happened, and on a terminal one that lives."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None
        self._shown = 0.0 if self._status else time.monotonic()
        if self._status:
            self._status.start()

    def heard(self, event: RunEvent, state: RunState) -> None:
        """Print what is news, and refresh the living line five times a second."""
        from rich.text import Text

        for line in describe(event, state):
            print_line(self._console, line)
        waited = time.monotonic() - self._shown
        if waited < (_LIVING_S if self._status else _LOGGED_S):
            return
        self._shown = time.monotonic()
        line = living_line(state, time.time())
        if self._status:
            # As Text: a string would be read as markup, and names in it are untrusted.
            self._status.update(Text(line))
        elif state.current is not None:
            print_line(self._console, f"  · {line}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._status:
            self._status.stop()


_STYLES = {"✓": "green", "✗": "bold red", "!": "yellow", "→": "bold", "·": "dim"}


def print_line(console: Console, line: str) -> None:
    """One line of :func:`describe`: its mark in colour, wrapped with an indent on a terminal."""
    from rich.text import Text

    text = Text(hanging(line, console.width if console.is_terminal else None, 4))
    mark = line.lstrip()[:1]
    if mark in _STYLES:
        start = len(line) - len(line.lstrip())
        text.stylize(_STYLES[mark], start, start + 1)
    console.print(text, soft_wrap=True)


def describe(event: RunEvent, state: RunState) -> Iterator[str]:
    """The lines that say an event; none for what only moves the living line."""
    if isinstance(event, Notice):
        yield f"  {'!' if event.level == 'warning' else '·'} {sanitize(event.text)}"
    elif isinstance(event, StepStarted):
        step = state.step(event.step)
        making = event.step in ("merge", "quantize")
        on = f" on {sanitize(event.detail)}" if making and event.detail else ""
        yield f"→ {sanitize(step.title if step else event.step)}{on}"
    elif isinstance(event, StepReused):
        yield f"✓ {event.step}: made before, reused from {sanitize(event.artifact)}"
    elif isinstance(event, StepFinished):
        step = state.step(event.step)
        if step is None or step.status != "reused":
            yield f"✓ {event.step}: {format_seconds(event.seconds)}{_outcome(event)}"
    elif isinstance(event, StepFailed):
        mark = "✗" if event.final else "!"
        after = "" if event.final else " Trying the next way."
        yield f"{mark} {event.step}: {sanitize(str(event.error['what']))}{after}"
    elif isinstance(event, ServerReady):
        seconds = format_seconds(event.seconds)
        yield f"  ready at {event.url} as {sanitize(event.model)}, {seconds} after the start"
    elif isinstance(event, Answered):
        yield f"  asked   {one_line(event.prompt)}"
        yield f"  answer  {one_line(event.text)}"


def _outcome(event: StepFinished) -> str:
    result = event.result
    if event.step == "merge" and "tensors_changed" in result:
        through = " through PEFT" if result.get("method") == "peft" else ""
        return (
            f"{through}, {result['tensors_changed']} tensors changed, {result['tensors_untouched']} "
            f"untouched, {format_bytes(result['bytes'])} written, "
            f"peak {format_bytes(result['peak_rss_bytes'])}"
        )
    if result.get("needless"):
        return ", not needed: the quantized model was made before"
    if event.step == "quantize" and "proof" in result:
        return (
            f", {format_bytes(result.get('bytes'))} written, peak {format_bytes(result.get('peak_rss_bytes'))}, "
            f"proven in {sanitize(str(result['proof'].get('runtime')))}"
        )
    if event.step.startswith("install") and "bytes" in result:
        return f", {format_bytes(result['bytes'])} on disk"
    if event.step.startswith("download"):
        return f", {format_bytes(result.get('bytes'))}"
    return ""


def living_line(state: RunState, now: float) -> str:
    """What is going on at this moment: step, phase, progress with an honest ETA, memory."""
    step = state.current
    parts: list[str] = []
    if step is not None:
        parts.append(step.id)
        if step.phase and step.phase != step.id:
            parts.append(sanitize(step.phase))
        parts.append(progress_words(step, now))
    elif state.ready is not None:
        parts.append(f"serving {sanitize(state.ready.model)}; Ctrl-C stops")
    if state.memory is not None and state.memory.tree_bytes:
        parts.append(f"RAM {format_bytes(state.memory.tree_bytes)}")
    for index, used, total in state.memory.gpus if state.memory else ():
        parts.append(f"GPU {index} {format_bytes(used)} of {format_bytes(total)}")
    return "  ".join(part for part in parts if part)


def _stopping() -> list[signal.Signals]:
    """The signals that ask to stop. SIGHUP is not one under nohup, which lets it be ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """KeyboardInterrupt from SIGINT, SIGTERM and SIGHUP: for work that leaves nothing to clean up.

    A flag would be seen only when a Hub that does not answer has timed out.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in _stopping()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def cancel_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set; the handlers before are put back after."""
    cancel = threading.Event()
    before = {number: signal.signal(number, lambda *_: cancel.set()) for number in _stopping()}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(events: Iterable[RunEvent], listener: Listener) -> RunState:
    """Run to the end, every event shown; gives the last state.

    When showing fails (the reader of a pipe is gone), ``events`` is closed, which stops the run.
    """
    state = RunState()
    try:
        for event in events:
            state = reduce(event, state)
            listener.heard(event, state)
    finally:
        listener.close()
        if isinstance(events, Generator):
            events.close()
    return state


def measurements(state: RunState) -> list[str]:
    """The figures of a run, predicted beside measured, each with its source."""
    lines: list[str] = []
    for row in figure_rows(state):
        value, unit = figure_words(row.value, row.unit), row.unit
        predicted = f" (predicted {figure_words(row.predicted, unit, 0)})" if row.predicted else ""
        base = ""
        if row.base:
            change = row.value / row.base - 1
            base = f" (16 bit: {figure_words(row.base, unit)}, {change:+.1%})"
        lines.append(f"{row.name:<14} {value}{predicted}{base}  [{row.source}]")
    return lines
