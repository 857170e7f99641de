"""A text over the screen, scrolled by the keyboard, that can be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.domain.terminal_text import one_line
from quantui.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Panel(ModalScreen[None]):
    """Shows ``content``, which carries no markup of strangers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "dismiss", "close", key_display="esc"),
        Binding("y", "copy", "copy"),
    ]
    DEFAULT_CSS = """
    Panel { align: center middle; }
    Panel > VerticalScroll {
        width: 95%; max-width: 120; height: auto; max-height: 90%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    Panel Static { height: auto; }
    """

    def __init__(self, title: str, content: Content) -> None:
        super().__init__()
        self._title = title
        self._content = content

    def compose(self) -> ComposeResult:
        """The text, and the keys."""
        with VerticalScroll() as panel:
            panel.border_title = Content(one_line(self._title))
            yield Static(self._content, markup=False)
        yield KeyBar()

    def action_copy(self) -> None:
        """Copy the text (OSC 52)."""
        self.app.copy_to_clipboard(self._content.plain)
        self.notify("Copied.")
