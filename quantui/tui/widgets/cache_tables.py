"""The parts of the cache screen that take keys: the table of things, and the line of the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from quantui.tui.cache_view import Line
from quantui.tui.widgets.row_table import RowTable

if TYPE_CHECKING:
    from textual import events


class ThingTable(RowTable[Line]):
    """Rows of things. Right and left open a repository and close it, and do not scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "screen.mark", "select", key_display="space"),
        Binding("right,l", "screen.unfold(1)", "show its revisions", show=False),
        Binding("left", "screen.unfold(0)", "hide them again", show=False),
        Binding("enter", "screen.unfold(2)", "show or hide its revisions", show=False),
    ]


class FilterLine(Input):
    """The filter. Down and Enter go to the things, Escape too; what was typed stays."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,enter,escape", "screen.leave_line", "to the things", key_display="⏎"),
        Binding("ctrl+u", "empty", "empty it"),
    ]

    def action_empty(self) -> None:
        """No filter."""
        self.value = ""

    def on_click(self, event: events.Click) -> None:
        """A click is meant for this line alone."""
        event.stop()
