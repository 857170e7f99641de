"""The rail: where you are among the steps, and one line of what you chose in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from quantui.domain.terminal_text import one_line
from quantui.tui.steps import STEPS, place_of

if TYPE_CHECKING:
    from quantui.tui.session import Session

_MARKS = {"done": "✓", "here": "▸", "ahead": "·"}
_STYLES = {"done": "$text-success", "here": "bold $primary", "ahead": "$text-muted"}


class Rail(Widget, can_focus=False):
    """A column beside the step where there is room, else two lines above it."""

    DEFAULT_CSS = """
    Rail {
        dock: top;
        height: 2;
        background: $panel;
        padding: 0 1;
    }
    """

    def __init__(self, step: str, session: Session) -> None:
        super().__init__()
        self.step = step
        self.session = session

    def render(self) -> Content:
        """Steps in order; the machine's name as a badge when it is not this one."""
        wide = self.screen.has_class("-wide")
        return self._column() if wide else self._lines()

    def _state(self, name: str) -> str:
        here, place = place_of(self.step), place_of(name)
        return "here" if place == here else "done" if place < here else "ahead"

    def _column(self) -> Content:
        parts: list[Content | str] = []
        width = max(self.content_size.width, 10)
        for step in STEPS:
            state = self._state(step.name)
            parts.append(Content.styled(f"{_MARKS[state]} {step.title}\n", _STYLES[state]))
            chosen = one_line(self.session.chosen(step.name))
            if state == "here" and step.name not in ("run", "ready"):
                chosen = ""
            line = f"  {chosen}" if chosen else ""
            cut = line if len(line) <= width else line[: width - 1] + "…"
            parts.append(Content.styled(f"{cut}\n", "$text-muted"))
        if self.session.simulated:
            parts.append(
                Content.styled("\n SIMULATED MACHINE ", "bold $text-warning on $warning-muted")
            )
        return Content.assemble(*parts)

    def _lines(self) -> Content:
        width = max(self.content_size.width, 20)
        parts: list[Content | str] = []
        for number, step in enumerate(STEPS):
            state = self._state(step.name)
            name = f"▸{step.title}" if state == "here" else step.title
            parts.append(Content.styled(name, _STYLES[state]))
            parts.append(Content.styled(" › " if number + 1 < len(STEPS) else "", "$text-muted"))
        if self.session.simulated:
            parts.append(Content.styled(" SIMULATED", "bold $text-warning"))
        here = place_of(self.step)
        told = [one_line(self.session.chosen(step.name)) for step in STEPS[:here]]
        line = " · ".join(filter(None, told))
        cut = line if len(line) <= width else "…" + line[-(width - 1) :]
        parts.append(Content.styled(f"\n{cut}", "$text-muted"))
        return Content.assemble(*parts)
