"""Earlier runs: a row each, the newest first; details, two side by side, a figure plotted over them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import one_line
from quantui.tui import history_rows as words
from quantui.tui.screens.over import OverScreen
from quantui.tui.widgets.row_table import Cell, Column, RowTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from quantui.domain.run_summary import RunSummary

_TELL_EVERY_S = 0.1
_EMPTY = """No run is recorded yet.

A run is recorded when it starts: go through the steps to Review and press enter,
or type `quantui --profile prod.toml` or `quantui demo`. It then appears here with
what it measured: memory beside the prediction, load time, speed and quality."""


class HistoryScreen(OverScreen):
    """Every run that this quantui recorded, whoever began it."""

    TITLE = "History"
    ABOUT = "reading the records of earlier runs..."
    HELP = """
    Every run with what was predicted and what it measured. A run is recorded from its first second on, also when it
    fails. Mark two with space and compare them with x; p plots a figure over all runs.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "details"),
        Binding("space,m", "mark", "mark", key_display="space"),
        Binding("x", "compare", "compare two"),
        Binding("p", "plot", "plot"),
        Binding("h", "close", "back", show=False),
        Binding("r", "refresh", "read again", show=False),
    ]
    DEFAULT_CSS = """
    HistoryScreen #runs { height: 1fr; }
    HistoryScreen #told { height: auto; max-height: 5; margin-top: 1; }
    """

    class Read(Message):
        """More records were read; ``done``: there are no others."""

        def __init__(self, runs: tuple[RunSummary, ...], *, done: bool) -> None:
            self.runs = runs
            self.done = done
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            """A newer one holds all of an older one."""
            return isinstance(message, HistoryScreen.Read)

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[str] = []
        self.runs: tuple[RunSummary, ...] = ()
        self.whole = False
        """Whether every record was read."""

    def compose_body(self) -> Iterable[Widget]:
        """The table, and the highlighted run in full."""
        yield RowTable["RunSummary"](
            (
                Column("", 1),
                Column("begun", 11),
                Column("model", 12, grows=True),
                Column("method", 14),
                Column("outcome", 11),
                Column("memory", 9, right=True),
                Column("predicted", 9, right=True, least=95),
                Column("load", 12, right=True, least=110),
                Column("tok/s", 6, right=True),
                Column("quality", 8, right=True, least=95),
            ),
            self._cells,
            id="runs",
        )
        yield Static(id="told", markup=False)

    @property
    def table(self) -> RowTable[RunSummary]:
        """The rows."""
        return self.query_one("#runs", RowTable)

    def on_mount(self) -> None:
        """Read once it is on the screen."""
        self.call_after_refresh(self.read)

    @work(thread=True, exclusive=True, group="history", exit_on_error=False)
    def read(self) -> None:
        """Read the records, the newest first."""
        from quantui.runtime.history import read_history

        worker = get_current_worker()
        found: list[RunSummary] = []
        told = 0.0
        for run in read_history():
            found.append(run)
            if worker.is_cancelled:
                return
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                self.post_message(self.Read(tuple(found), done=False))
        self.post_message(self.Read(tuple(found), done=True))

    def on_history_screen_read(self, message: Read) -> None:
        """Show what was read; the cursor stays on its run."""
        before = self.table.row
        self.runs = message.runs
        ids = [run.run_id for run in self.runs]
        place = ids.index(before.run_id) if before is not None and before.run_id in ids else None
        self.table.show(self.runs, cursor=place)
        self.whole = message.done
        if message.done:
            ok = sum(run.outcome == "ok" for run in self.runs)
            count = f"{len(self.runs)} run{'' if len(self.runs) == 1 else 's'}"
            self.say(f"{count}, {ok} of them ok" if self.runs else "no runs yet")
            self.table.display = bool(self.runs)
        self._say_more()
        self.refresh_bindings()

    def on_row_table_highlighted(self) -> None:
        """Say more of the highlighted run."""
        self._say_more()

    def _say_more(self) -> None:
        run = self.table.row
        told = self.query_one("#told", Static)
        if run is None:
            told.update(Content(_EMPTY) if self.table.display is False else "")
            return
        lines = [
            f"{run.title}, {run.method or 'method unknown'}"
            + (f", {run.engine}" if run.engine else ""),
            f"memory {words.memory(run)}",
            f"load {words.seconds(run.load_seconds)} · one stream {words.speed(run.tokens_per_s)} · "
            f"perplexity {words.loss(run.quality_loss)} over 16 bit",
        ]
        if run.what:
            lines.append(f"✗ {run.what}")
        told.update(Content("\n").join(Content(one_line(line)) for line in lines))

    def _cells(self, run: RunSummary) -> Sequence[Cell | str]:
        text, tone = words.outcome(run)
        return (
            "•" if run.run_id in self.marked else "",
            words.when(run.started),
            run.title,
            run.method or "unknown",
            Cell(text, tone),
            format_bytes(run.measured_bytes) if run.measured_bytes is not None else "-",
            format_bytes(run.predicted_bytes) if run.predicted_bytes is not None else "-",
            words.seconds(run.load_seconds) if run.load_seconds is not None else "-",
            f"{run.tokens_per_s:.1f}" if run.tokens_per_s is not None else "-",
            words.loss(run.quality_loss) if run.quality_loss is not None else "-",
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey what needs a run, or two that are marked."""
        del parameters
        if action in ("details", "mark", "plot"):
            return True if self.runs else None
        if action == "compare":
            return True if len(self.marked) == 2 else None
        return True

    def action_mark(self) -> None:
        """Mark the highlighted run, or take its mark away; a third mark replaces the first."""
        run = self.table.row
        if run is None:
            return
        if run.run_id in self.marked:
            self.marked.remove(run.run_id)
        else:
            self.marked = [*self.marked[-1:], run.run_id]
        self.table.refresh()
        self.refresh_bindings()

    def action_details(self) -> None:
        """Everything that is known of the highlighted run."""
        from quantui.tui.screens.history_panels import details_panel

        run = self.table.row
        if run is not None:
            self.app.push_screen(details_panel(run))

    def action_compare(self) -> None:
        """The two marked runs side by side, the older one on the left."""
        from quantui.tui.screens.history_panels import compare_panel

        right, left = (run for run in self.runs if run.run_id in self.marked)
        self.app.push_screen(compare_panel(left, right))

    def action_plot(self) -> None:
        """A figure over all runs."""
        from quantui.tui.screens.history_plot import HistoryPlot

        self.app.push_screen(HistoryPlot(self.runs))

    def action_refresh(self) -> None:
        """Read what changed."""
        self.read()
