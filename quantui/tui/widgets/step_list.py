"""The steps of a run: waiting, running, reused, done or failed, each with a mark; the running one with its progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from quantui.domain.formatting import format_seconds
from quantui.domain.run_words import amount_words, elapsed_s, left_words
from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.geometry import Size

    from quantui.domain.run_state import RunState, StepState

MARKS = {"waiting": "·", "running": "▸", "reused": "↺", "done": "✓", "failed": "✗"}
_STYLES = {
    "waiting": "$text-muted",
    "running": "bold $primary",
    "reused": "$text-success",
    "done": "$text-success",
    "failed": "bold $text-error",
}
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int) -> str:
    """``share`` (0 to 1) of ``width`` columns in eighth blocks; what is left is dotted."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, part = divmod(eighths, 8)
    text = "█" * whole + (_EIGHTHS[part] if part else "")
    return text + "·" * (width - len(text))


class StepList(Widget, can_focus=False):
    """Two lines for the running step, one for the others; drawn anew four times a second while something runs.

    Where there are more than lines for them, those that are done are told as a number.
    """

    DEFAULT_CSS = """
    StepList { height: auto; max-height: 12; }
    """

    def __init__(self, clock: Callable[[], float] = time.time, id: str | None = None) -> None:
        """``clock`` gives seconds since the epoch, as the events' ``at`` is."""
        super().__init__(id=id)
        self._clock = clock
        self._steps: tuple[StepState, ...] = ()
        self._ended: float | None = None
        self._lines = 0

    def on_mount(self) -> None:
        """Times go on between events."""
        self.set_interval(0.25, self._tick)

    def _tick(self) -> None:
        if self._ended is None and self._steps:
            self.refresh()

    def show(self, state: RunState) -> None:
        """Draw ``state``: at once what happened to a step, with the next tick how far it is."""
        before = self._shape()
        self._steps = state.steps
        self._ended = None if state.finished is None else state.finished.at
        if self._lines != (lines := self._count()):
            self._lines = lines
            self.refresh(layout=True)
        elif self._shape() != before:
            self.refresh()

    def _shape(self) -> object:
        return self._ended, [(step.id, step.status, step.phase) for step in self._steps]

    def _count(self) -> int:
        return sum(1 + bool(self._below(step)) for step in self._steps)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A line a step, and one for the progress of the running one."""
        del container, viewport, width
        return max(1, self._count())

    def render(self) -> Content:
        """All steps, or as many as there is room for around the running one."""
        if not self._steps:
            return Content.styled("Starting the process that does the run...", "$text-muted")
        width, height = max(self.size.width, 20), max(self.size.height, 1)
        now = self._clock() if self._ended is None else self._ended
        hidden = self._hidden(height)
        lines: list[Content] = []
        if hidden:
            lines.append(Content.styled(f"✓ {hidden} steps are done", _STYLES["done"]))
        for step in self._steps[hidden:]:
            lines.append(self._line(step, now, width))
            if self._below(step):
                lines.append(self._progress(step, now, width))
        return Content("\n").join(lines[:height])

    def _hidden(self, height: int) -> int:
        """How many of the first steps, all done, are told as a number so that the rest has room."""
        over = self._count() - height
        if over <= 0:
            return 0
        over_done = 0
        for step in self._steps:
            if step.status not in ("done", "reused") or over_done > over:
                break
            over_done += 1
        return over_done if over_done > 1 else 0

    @staticmethod
    def _below(step: StepState) -> bool:
        return step.status == "running" and bool(step.phase or step.done is not None)

    def _line(self, step: StepState, now: float, width: int) -> Content:
        title = one_line(step.title)
        on = f" on {one_line(step.detail)}" if step.detail.startswith(("cpu", "cuda")) else ""
        took = elapsed_s(step, now)
        if step.status == "reused":
            right = "made before, reused"
        elif step.result.get("needless"):
            right = "not needed"
        elif step.status == "waiting":
            right = "waiting"
        else:
            word = "failed after " if step.status == "failed" else ""
            right = word + (format_seconds(took) if took is not None else "")
        left = f"{MARKS[step.status]} {title}{on}"
        room = width - len(right) - 2
        if Content(left).cell_length > room:
            left = Content(left).truncate(room, ellipsis=True).plain
        gap = " " * max(1, width - Content(left).cell_length - len(right))
        return Content.assemble(
            Content.styled(left, _STYLES[step.status]),
            gap,
            Content.styled(right, "" if step.status == "running" else "$text-muted"),
        )

    @staticmethod
    def _progress(step: StepState, now: float, width: int) -> Content:
        phase = one_line(step.phase)
        parts: list[Content | str] = ["    "]
        if step.done is None:
            since = "" if step.phase_since is None else format_seconds(now - step.phase_since)
            parts.append(f"{phase}  {since}".rstrip())
            return Content.assemble(*parts).truncate(width, ellipsis=True)
        if phase:
            parts.append(f"{phase}  ")
        words = f"  {amount_words(step)}, {left_words(step, now)}"
        if step.total:
            columns = max(6, min(24, width - 6 - len(phase) - len(words)))
            parts.append(Content.styled(bar(step.done / step.total, columns), "$primary"))
        parts.append(words)
        if step.message:
            parts.append(Content.styled(f"  {one_line(step.message)}", "$text-muted"))
        return Content.assemble(*parts).truncate(width, ellipsis=True)
