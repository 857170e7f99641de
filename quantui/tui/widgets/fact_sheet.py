"""Labelled facts with a hanging indent, scrolled by the keyboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from quantui.domain.formatting import hanging
from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

_LABEL = 13
_TONES = {
    "": "",
    "muted": "$text-muted",
    "good": "$text-success",
    "warn": "$text-warning",
    "bad": "bold $text-error",
    "strong": "bold",
}


@dataclass(frozen=True)
class Fact:
    """A label ("" goes on with the one above) and its text, of any length and from anybody. ``tone`` as in Cell."""

    label: str
    text: str
    tone: str = ""


class FactSheet(VerticalScroll, can_focus=True):
    """Nothing is cut off: long texts are wrapped, and what is below is scrolled to."""

    DEFAULT_CSS = """
    FactSheet {
        border-top: solid $foreground 30%; border-title-color: $text-muted;
        padding: 0; height: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    FactSheet:focus { border-top: solid $primary; }
    FactSheet > Static { height: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.facts: tuple[Fact, ...] = ()
        self._drawn = 0

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static(markup=False)

    def show(self, title: str, facts: Sequence[Fact], *, again: bool = False) -> None:
        """Show ``facts`` below ``title``; ``again``: more of the same, so that the place stays."""
        self.border_title = Content(one_line(title))
        self.facts = tuple(facts)
        self._draw()
        if not again:
            self.scroll_home(animate=False)

    def on_resize(self) -> None:
        """Wrap for the width there is."""
        if self._width() != self._drawn:
            self._draw()

    def _width(self) -> int:
        return max(24, self.scrollable_content_region.width)

    def _draw(self) -> None:
        self._drawn = width = self._width()
        lines: list[Content] = []
        for fact in self.facts:
            label = f"{fact.label:<{_LABEL - 1}} "
            told = hanging(f"{label}{one_line(fact.text)}", width, _LABEL)
            head = Content.styled(told[:_LABEL], "$text-muted")
            body = Content.styled(told[_LABEL:], _TONES[fact.tone])
            lines.append(Content.assemble(head, body))
        self.query_one(Static).update(Content("\n").join(lines))
