"""What belongs to the highlighted line, in full: read on with page up and down without leaving the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.content import Content

READ_ON: tuple[BindingType, ...] = (
    Binding("pageup", "read_on(-1)", "details up", show=False, priority=True),
    Binding("pagedown", "read_on(1)", "details down", show=False, priority=True),
)
"""Keys for a screen whose ``action_read_on`` calls :meth:`DetailsPane.turn`: its list has no use for them."""


class DetailsPane(VerticalScroll, can_focus=True):
    """A text that scrolls; another subject begins at its top."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.next", "next", show=False)]
    DEFAULT_CSS = """
    DetailsPane {
        height: 1fr; min-height: 2; margin-top: 1; scrollbar-size-vertical: 1;
        Static { height: auto; }
    }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._subject = ""

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static(markup=False)

    def tell(self, subject: str, content: Content) -> None:
        """Show ``content``; of the same ``subject`` one goes on reading where one was."""
        self.query_one(Static).update(content)
        if subject != self._subject:
            self._subject = subject
            self.scroll_home(animate=False)

    def turn(self, pages: int) -> None:
        """Read on by pages; one line stays in sight."""
        self.scroll_relative(y=pages * max(self.size.height - 1, 1), animate=False)
