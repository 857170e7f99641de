"""The panel behind `w`: every figure with its formula, its inputs and whose word it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.domain.terminal_text import one_line, sanitize
from quantui.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from quantui.domain.explained_row import Row


class Why(ModalScreen[None]):
    """Rows of subject, value, formula and source, scrolled by the keyboard."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,w,q", "dismiss", "close"),
        Binding("y", "copy", "copy"),
    ]
    DEFAULT_CSS = """
    Why { align: center middle; }
    Why > VerticalScroll {
        width: 90%; max-width: 110; height: 90%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    Why Static { height: auto; }
    """

    def __init__(self, title: str, rows: Sequence[Row]) -> None:
        super().__init__()
        self._title = title
        self._rows = rows

    def compose(self) -> ComposeResult:
        """All rows as one text."""
        with VerticalScroll() as panel:
            panel.border_title = Content(f"why: {one_line(self._title)}")
            yield Static(self._content(), markup=False)
        yield KeyBar()

    def _content(self) -> Content:
        parts: list[Content | str] = []
        for row in self._rows:
            parts.append(Content.styled(sanitize(row.subject), "bold"))
            parts.append(f"  {sanitize(row.value)}\n")
            if row.formula:
                parts.append(f"    {sanitize(row.formula)}\n")
            if row.source:
                parts.append(Content.styled(f"    source: {sanitize(row.source)}\n", "$text-muted"))
        return Content.assemble(*parts)

    def action_copy(self) -> None:
        """Copy the panel (OSC 52)."""
        self.app.copy_to_clipboard(self._content().plain)
        self.notify("Copied.")
