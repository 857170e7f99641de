"""Runs that go on without this window: this wizard's own, one that was left running, and `quantui --profile`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.terminal_text import one_line
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.screens.over import OverScreen
from quantui.tui.widgets.row_table import Cell, Column, RowTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from quantui.runtime.living_runs import LivingRun

_LOOK_S = 1.0
_EMPTY = (
    "Nothing runs in the background.\n\n"
    "A run goes on without this window when you quit it with q and choose to keep it, "
    "or with k on the Ready step. It is found here again."
)


class BackgroundScreen(OverScreen):
    """Looks every second. Enter goes to a run, x stops one."""

    TITLE = "background"
    ABOUT = "runs that are under way on this machine"
    HELP = (
        "Every run of quantui that is under way: those of other windows and of `quantui --profile` too. "
        "Enter follows one as if it had been started here; x stops it and checks that its memory is back."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "attach", "go to it"),
        Binding("x", "stop", "stop it"),
    ]
    DEFAULT_CSS = """
    BackgroundScreen RowTable { height: 1fr; }
    BackgroundScreen #empty { height: auto; padding: 1 0; }
    """

    class Found(Message):
        """What lives at this moment."""

        def __init__(self, runs: tuple[LivingRun, ...]) -> None:
            self.runs = runs
            super().__init__()

    class Stopped(Message):
        """A run was stopped: in ``words``, with what is left of it."""

        def __init__(self, run_id: str, words: str, *, gone: bool) -> None:
            self.run_id = run_id
            self.words = words
            self.gone = gone
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self._runs: tuple[LivingRun, ...] = ()
        self._stopping: set[str] = set()
        self._left = threading.Event()

    def compose_body(self) -> Iterable[Widget]:
        """The table, or why there is none."""
        columns = [
            Column("what", 24, grows=True),
            Column("state", 10),
            Column("since", 11),
            Column("memory", 12, right=True),
            Column("process", 9, right=True, least=96),
        ]
        yield Static("Looking...", id="empty", markup=False)
        yield RowTable["LivingRun"](columns, self._cells, id="runs")

    def on_mount(self) -> None:
        """Look now, and then every second."""
        for table in self.query(RowTable):
            table.display = False
        self._watch()

    def on_unmount(self) -> None:
        """End looking."""
        self._left.set()

    @work(thread=True, group="background", exit_on_error=False)
    def _watch(self) -> None:
        from quantui.runtime.living_runs import living_runs

        while not self._left.is_set():
            self.post_message(self.Found(living_runs()))
            self._left.wait(_LOOK_S)

    def on_background_screen_found(self, message: Found) -> None:
        """Show them; the cursor stays with its run."""
        if not self.query(RowTable):
            return
        table = self.query_one(RowTable)
        here = table.row.run_id if table.row is not None else None
        self._runs = message.runs
        self.wizard.background_count = len(message.runs)
        ids = [run.run_id for run in message.runs]
        table.show(message.runs, cursor=ids.index(here) if here in ids else None)
        table.display = bool(message.runs)
        empty = self.query_one("#empty", Static)
        empty.display = not message.runs
        empty.update(Content(_EMPTY))
        if message.runs and self.focused is None:
            table.focus()
        self.refresh_bindings()

    def _cells(self, run: LivingRun) -> Sequence[Cell | str]:
        if run.run_id in self._stopping:
            state = Cell("stopping", "warn")
        elif run.serving:
            state = Cell("✓ serving", "good")
        else:
            state = Cell(f"▸ {run.state.current.id}" if run.state.current else "▸ starting")
        since = (
            "" if run.started is None else format_seconds(max(0, round(time.time() - run.started)))
        )
        view = self.wizard.session.run
        own = " (this window)" if view is not None and view.state.run_id == run.run_id else ""
        return (f"{one_line(run.title)}{own}", state, since, _memory(run), str(run.pid))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys for a run need one."""
        if action in ("attach", "stop"):
            return True if self._runs else None
        return super().check_action(action, parameters)

    @property
    def _chosen(self) -> LivingRun | None:
        chosen: LivingRun | None = self.query_one(RowTable).row
        return chosen

    def action_attach(self) -> None:
        """Follow it: Run, or Ready when it serves."""
        run = self._chosen
        if run is None:
            return
        view = self.wizard.session.run
        if view is None or view.state.run_id != run.run_id:
            if view is not None and view.living and not view.detached:
                self._ask_to_let_go(run)
                return
            self.wizard.attach(run.run_id)
        self.wizard.go("run")

    def _ask_to_let_go(self, run: LivingRun) -> None:
        """This window's own run has to be let go before another one is followed."""
        replies = [
            Reply("stay", "s", "stay with this one"),
            Reply("keep", "k", "let it go on in the background, and go to the other"),
        ]
        body = "This window follows one run at a time, and its own still goes on."

        def replied(reply: str | None) -> None:
            if reply == "keep":
                self._let_go(run.run_id)

        self.app.push_screen(Ask("Go to another run?", body, replies), replied)

    @work(thread=True, group="let-go", exit_on_error=False)
    def _let_go(self, run_id: str) -> None:
        view = self.wizard.session.run
        if view is not None and view.hosted is not None:
            view.detached = view.hosted.detach()
        self.app.call_later(self._follow_other, run_id)

    def _follow_other(self, run_id: str) -> None:
        self.wizard.attach(run_id)
        self.wizard.go("run")

    def action_stop(self) -> None:
        """Ask, then stop it."""
        run = self._chosen
        if run is None or run.run_id in self._stopping:
            return
        replies = [Reply("on", "g", "let it go on"), Reply("stop", "x", "stop it")]
        body = f"{one_line(run.title)}: every process of it ends, whoever uses it now."

        def replied(reply: str | None) -> None:
            if reply == "stop":
                self._stopping.add(run.run_id)
                view = self.wizard.session.run
                if view is not None and view.state.run_id == run.run_id:
                    view.cancel()
                self._stop(run)

        self.app.push_screen(Ask("Stop this run?", body, replies), replied)

    @work(thread=True, group="stop", exit_on_error=False)
    def _stop(self, run: LivingRun) -> None:
        from quantui.runtime.freed import held
        from quantui.runtime.living_runs import stop_run

        had = run.state.memory.tree_bytes if run.state.memory else None
        gone = stop_run(run.run_id)
        left = held(run.run_id)
        now = format_bytes(left.ram_bytes) if left.ram_bytes else "0"
        words = f"RAM of the run {format_bytes(had)} before, {now} now"
        count = len(left.pids)
        words += f", {count or 'no'} process{'es' if count > 1 else ''} left"
        self.post_message(self.Stopped(run.run_id, words, gone=gone and not left.pids))

    def on_background_screen_stopped(self, message: Stopped) -> None:
        """Say whether it is gone."""
        self._stopping.discard(message.run_id)
        how = "stopped" if message.gone else "NOT all stopped"
        self.say(f"{'✓' if message.gone else '!'} {how}: {message.words}")


def _memory(run: LivingRun) -> str:
    """GPU memory of the whole cards where there are any, else the RAM of its processes."""
    memory = run.state.memory
    if memory is None:
        return "unknown"
    if memory.gpus:
        return format_bytes(sum(used for _, used, _ in memory.gpus)) + " GPU"
    return format_bytes(memory.tree_bytes)
