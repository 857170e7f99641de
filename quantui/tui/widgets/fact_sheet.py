"""Labelled facts with a hanging indent, scrolled by the keyboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from quantui.domain.terminal_text import one_line
from quantui.tui.widgets.log_view import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

_LABEL = 13


@dataclass(frozen=True)
class Fact:
    """A label ("" goes on with the one above) and its text, of any length and from anybody.

    ``tone``: "", ``muted``, ``good``, ``warn``, ``bad`` or ``strong``. No tone says anything alone.
    """

    label: str
    text: str
    tone: str = ""


class FactSheet(ScrollView, can_focus=True):
    """Nothing is cut off: long texts are wrapped, and what is below is scrolled to.

    Lines are drawn as they are needed, without a layout: facts change with every key in the list beside them.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "facts--muted",
        "facts--good",
        "facts--warn",
        "facts--bad",
        "facts--strong",
    }
    DEFAULT_CSS = """
    FactSheet {
        border-top: solid $foreground 30%; border-title-color: $text-muted;
        padding: 0; height: 1fr; overflow-x: hidden;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
        .facts--muted { color: $text-muted; }
        .facts--good { color: $text-success; }
        .facts--warn { color: $text-warning; }
        .facts--bad { color: $text-error; text-style: bold; }
        .facts--strong { text-style: bold; }
    }
    FactSheet:focus { border-top: solid $primary; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.facts: tuple[Fact, ...] = ()
        self._rows: list[tuple[str, str, str]] = []
        self._wrapped_for = 0

    def show(self, title: str, facts: Sequence[Fact], *, again: bool = False) -> None:
        """Show ``facts`` below ``title``; ``again``: more of the same, so that the place stays."""
        titled = Content(one_line(title))
        if self.border_title != titled.markup:
            self.border_title = titled
        self.facts = tuple(facts)
        self._wrap()
        if not again and self.scroll_offset.y:
            self.scroll_home(animate=False)

    def on_resize(self) -> None:
        """Wrap for the width there is."""
        if self._width() != self._wrapped_for:
            self._wrap()

    def _width(self) -> int:
        return max(24, self.scrollable_content_region.width)

    def _wrap(self) -> None:
        self._wrapped_for = width = self._width()
        rows: list[tuple[str, str, str]] = []
        for fact in self.facts:
            label = fact.label
            for line in _lines(one_line(fact.text), width - _LABEL):
                rows.append((label, line, fact.tone))
                label = ""
        self._rows = rows
        # As high as what is seen at least: fewer rows than that change no layout.
        self.virtual_size = Size(width, max(len(rows), self.size.height))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A label and a line of its text."""
        width, base = self.scrollable_content_region.width, self.rich_style
        place = self.scroll_offset.y + y
        if place >= len(self._rows):
            return Strip.blank(width, base)
        label, text, tone = self._rows[place]
        muted = base + self.get_component_rich_style("facts--muted", partial=True)
        style = base
        if tone:
            style += self.get_component_rich_style(f"facts--{tone}", partial=True)
        shown = f"{label:<{_LABEL - 1}} "
        return Strip([Segment(shown, muted), Segment(text, style)]).adjust_cell_length(width, base)


def _lines(text: str, width: int) -> list[str]:
    """``text`` in lines of ``width`` cells, broken between words where they fit."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if len(wrapped(joined, width)) == 1:
            line = joined
            continue
        if line:
            lines.append(line)
        *whole, (begin, end) = wrapped(word, width)
        lines += [word[a:b] for a, b in whole]
        line = word[begin:end]
    return [*lines, line]
