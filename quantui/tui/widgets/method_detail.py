"""One row of the methods in full: its memory as a bar, the ladder of contexts, and why it stands where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from quantui.domain.choosing.recommendation import Choice
from quantui.tui.method_words import choice_words, nothing_words, refusal_words
from quantui.tui.widgets.context_ladder import ContextLadderBar
from quantui.tui.widgets.memory_bar import MemoryBar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from quantui.domain.choosing.context_ladder import Rung
    from quantui.domain.choosing.recommendation import Recommendation, Refusal

_LINES, _LINES_TALL = 6, 10


class MethodDetail(Vertical):
    """The bar and the ladder are drawn for the context that is asked now, before it is ranked for."""

    DEFAULT_CSS = """
    MethodDetail { height: auto; display: none; }
    MethodDetail.-there { display: block; }
    MethodDetail #told { height: 6; }
    MethodDetail.-tall #told { height: 10; }
    MethodDetail.-tall MemoryBar { margin-top: 1; }
    """

    def compose(self) -> ComposeResult:
        """Bar, ladder, words."""
        yield MemoryBar()
        yield ContextLadderBar()
        yield Static(id="told", markup=False)

    def show(
        self,
        row: Choice | Refusal | None,
        found: Recommendation,
        rungs: Sequence[Rung],
        *,
        asked: tuple[int, int],
        limit: int | None,
        ram_total: int | None,
    ) -> None:
        """Show ``row``; ``asked``: context in tokens and users at once, ``limit``: what the model was made for."""
        tall = self.screen.has_class("-tall")
        self.add_class("-there").set_class(tall, "-tall")
        context, users = asked
        at = next((rung.fit for rung in rungs if rung.context == context), None)
        self.query_one(MemoryBar).show(
            at or (row.fit if row is not None else None),
            ram_total=ram_total,
            copies=1 if row is None else max(1, len(row.gpus)),
            why="What it would take is not computed: it cannot run here.",
        )
        self.query_one(ContextLadderBar).show(rungs, asked=context, users=users, limit=limit)
        told = self.query_one("#told", Static)
        width = max(40, self.content_size.width)
        lines = _LINES_TALL if tall else _LINES
        told.update(_words(row, found, width, lines), layout=False)


def _words(row: Choice | Refusal | None, found: Recommendation, width: int, lines: int) -> Content:
    if row is None:
        return nothing_words(found, width, lines) if not found.choices else Content("")
    if isinstance(row, Choice):
        return choice_words(row, found.notes, width, lines)
    if found.nearest is not None and row.method == found.nearest.method:
        return nothing_words(found, width, lines)
    return refusal_words(row, width, lines)
