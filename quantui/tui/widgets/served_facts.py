"""What is known of a served model: figures measured beside predicted, its memory, and how to ask it from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content

from quantui.domain.formatting import hanging
from quantui.domain.run_words import figure_rows
from quantui.domain.terminal_text import one_line, sanitize
from quantui.tui.run_words import figure_lines
from quantui.tui.widgets.run_memory import RunMemory
from quantui.tui.widgets.told import Told

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from quantui.tui.run_view import RunView


class ServedFacts(VerticalScroll):
    """Scrolled by the keyboard. Snippets are shown one at a time."""

    DEFAULT_CSS = """
    ServedFacts { width: 1fr; height: 1fr; }
    ServedFacts Told { margin-bottom: 1; }
    ServedFacts RunMemory { height: 10; margin-bottom: 1; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._snippets: dict[str, str] = {}
        self._place = 0
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        """Figures, graphs, the snippet."""
        yield Told(id="figures")
        yield RunMemory(id="memory")
        yield Told(id="snippet")

    def show(self, view: RunView) -> None:
        """Draw what changes."""
        self._view = view
        rows = figure_rows(view.state)
        lines = [Content.styled("measured (w: formulas and sources)", "bold")]
        room = self.scrollable_content_region.width
        lines += [Content(line) for line in figure_lines(rows, room)]
        answer = view.state.answer
        if answer is not None:
            for word, text in (("asked", answer.prompt), ("answer", answer.text)):
                line = hanging(f"{word:<8}{one_line(text)}", room, 8)
                lines.append(Content.styled(line, "$text-muted"))
        self.query_one("#figures", Told).tell(Content("\n").join(lines))
        self.query_one(RunMemory).show(view)

    def on_mount(self) -> None:
        """Snippets may have been offered before there was a place for them."""
        self._show_snippet()

    def on_resize(self) -> None:
        """Lines are broken for the room there is."""
        if self._view is not None:
            self.show(self._view)

    # --- snippets

    def offer(self, snippets: dict[str, str]) -> None:
        """Show the first of ``snippets``: name to text."""
        self._snippets = snippets
        self._show_snippet()

    @property
    def snippet(self) -> tuple[str, str] | None:
        """Name and text of the one that is shown; None before there are any."""
        return list(self._snippets.items())[self._place] if self._snippets else None

    def next_snippet(self) -> None:
        """Show the next one."""
        self._place = (self._place + 1) % max(1, len(self._snippets))
        self._show_snippet()

    def _show_snippet(self) -> None:
        if self.snippet is None:
            return
        here, text = self.snippet
        tabs = [
            Content.styled(f"[{name}]", "bold")
            if name == here
            else Content.styled(f" {name} ", "$text-muted")
            for name in self._snippets
        ]
        head = Content.assemble(*tabs, Content.styled("  tab: next, y: copy", "$text-muted"))
        body = Content(sanitize(text, keep_newlines=True))
        # By query: they may come before the place for them, and after an app that ends took it away.
        for place in self.query("#snippet").results(Told):
            place.tell(Content("\n").join([head, body]))
