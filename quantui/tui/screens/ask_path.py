"""A question for the path of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantui.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from textual.app import ComposeResult


class AskPath(ModalScreen[Path | None]):
    """Gives the path that was typed, with ``~`` expanded; None when it was left with Escape or is empty."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "cancel")]
    DEFAULT_CSS = """
    AskPath { align: center middle; }
    AskPath > Vertical {
        width: 72; max-width: 95%; height: auto;
        border: round $primary; padding: 1 2; background: $surface;
    }
    AskPath Static { height: auto; }
    """

    def __init__(
        self, title: str, question: str, path: str = "", *, placeholder: str = "prod.toml"
    ) -> None:
        super().__init__()
        self._title = title
        self._question = question
        self._path = path
        self._placeholder = placeholder

    def compose(self) -> ComposeResult:
        """The question, and a line to type in."""
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield Static(Content(self._question), markup=False)
            yield Input(self._path, placeholder=self._placeholder, select_on_focus=False)
        yield KeyBar()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter gives the path."""
        typed = event.value.strip()
        try:
            self.dismiss(Path(typed).expanduser() if typed else None)
        except RuntimeError:
            # ~nobody: there is no such home; the name itself is what was meant.
            self.dismiss(Path(typed))
