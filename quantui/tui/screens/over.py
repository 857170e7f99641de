"""What a screen over the steps has: a line that says what it is, a body, an error if there is one, the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from quantui.domain.terminal_text import one_line
from quantui.tui.bugs import TellsBugs
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult
    from textual.widget import Widget

    from quantui.domain.errors import QuantuiError
    from quantui.tui.app import QuantuiApp


class OverScreen(TellsBugs, Screen[None]):
    """Opened with a key from anywhere, left with Escape; the step below keeps its place.

    A subclass gives :attr:`TITLE`, a sentence in :attr:`ABOUT`, and :meth:`compose_body`.
    """

    ABOUT: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "back")]
    DEFAULT_CSS = """
    OverScreen #over-title { dock: top; height: 1; padding: 0 1; background: $panel; }
    OverScreen #over-body { height: 1fr; padding: 0 1; }
    """

    @property
    def wizard(self) -> QuantuiApp:
        """The app, by its type."""
        return cast("QuantuiApp", self.app)

    def compose(self) -> ComposeResult:
        """Title, body, problem, keys."""
        yield Static(self._title(""), id="over-title", markup=False)
        with Vertical(id="over-body"):
            yield from self.compose_body()
        yield Problem(id="problem", markup=False)
        yield KeyBar()

    def compose_body(self) -> Iterable[Widget]:
        """The screen's own widgets."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """What there is to say beside the title: totals, or what is being done."""
        self.query_one("#over-title", Static).update(self._title(text))

    def _title(self, text: str) -> Content:
        name = Content.styled(self.TITLE or "", "bold $primary")
        about = Content.styled(f"  {one_line(text or self.ABOUT)}", "$text-muted")
        return Content.assemble(name, about)

    def tell(self, error: QuantuiError | None) -> None:
        """Show an error below the body, or take it away."""
        self.query_one("#problem", Problem).tell(error)

    def action_close(self) -> None:
        """Back to the step."""
        self.dismiss()
