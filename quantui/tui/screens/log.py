"""The log of a step, over any screen: followed while the step runs, searched with `/`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Static

from quantui.domain.terminal_text import one_line
from quantui.tui.bugs import TellsBugs
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.log_view import KEPT_LINES, LogView

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from textual.app import ComposeResult

_LOOK_S = 0.1
_LAST_BYTES = 4 << 20
"""What is read of a log that is there already: more than ten thousand lines of vLLM's."""
_AT_ONCE = 500
"""Lines given to the interface at a time, so that a key never waits for a long log."""


class LogScreen(TellsBugs, Screen[None]):
    """One of the logs in a run's folder. `[` and `]` go through them; the first shown is ``path``."""

    HELP = (
        "What the programs of a step printed, as it is in the file. The last 10,000 lines are kept here. "
        "Scrolling up pauses the following; f or End takes it up again."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,l", "close", "close", key_display="esc"),
        Binding("slash", "search", "search", key_display="/"),
        Binding("right_square_bracket", "log(1)", "next log", key_display="]"),
        Binding("left_square_bracket", "log(-1)", "log before", show=False),
        Binding("y", "copy", "copy path", show=False),
    ]
    DEFAULT_CSS = """
    LogScreen #head { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
    LogScreen #search { display: none; height: 1; border: none; padding: 0 1; }
    LogScreen #search.-there { display: block; }
    """

    class Lines(Message):
        """Lines that came in the log at ``path``; ``skipped`` bytes of it are before them."""

        def __init__(self, path: Path, lines: Sequence[str], skipped: int) -> None:
            self.path = path
            self.lines = lines
            self.skipped = skipped
            super().__init__()

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._skipped = 0
        self._stop = threading.Event()

    def compose(self) -> ComposeResult:
        """Where it is, the lines, the search, the keys."""
        yield Static(id="head", markup=False)
        yield LogView(id="log")
        yield Input(
            id="search", placeholder="search this log; Enter finds, Esc leaves", compact=True
        )
        yield KeyBar()

    def on_mount(self) -> None:
        """Follow the file from now on."""
        self.query(LogView).focus()
        self._tail(self._path, self._stop)

    def on_unmount(self) -> None:
        """Let the file go."""
        self._stop.set()

    def _begin(self) -> None:
        self._stop.set()
        self._stop = threading.Event()
        self._skipped = 0
        self.query_one(LogView).clear()
        self._tail(self._path, self._stop)

    @work(thread=True, group="log", exit_on_error=False)
    def _tail(self, path: Path, stop: threading.Event) -> None:
        from quantui.runtime.log_tail import LogTail

        tail = LogTail(path, _LAST_BYTES)
        while not stop.is_set():
            try:
                lines = tail.lines()[-KEPT_LINES:]
            except OSError as error:
                lines = [f"(cannot be read: {error})"]
                stop.set()
            for at in range(0, len(lines), _AT_ONCE):
                self.post_message(self.Lines(path, lines[at : at + _AT_ONCE], tail.skipped_bytes))
            stop.wait(_LOOK_S)

    def on_log_screen_lines(self, message: Lines) -> None:
        """Show what came, unless another log was chosen meanwhile."""
        if message.path == self._path:
            self._skipped = message.skipped
            for view in self.query(LogView):
                view.extend(message.lines)

    def on_log_view_changed(self) -> None:
        """Say which log it is and whether it is followed."""
        view = self.query_one(LogView)
        words = [one_line(self._path.name)]
        if view.query_text:
            count = sum(view.query_text in line.lower() for line in view.lines)
            words.append(
                f"{count} line{'s' if count != 1 else ''} with {one_line(view.query_text)!r}"
            )
        if view.following:
            words.append("following")
        else:
            news = (
                f", {view.unseen} new line{'s' if view.unseen > 1 else ''}" if view.unseen else ""
            )
            words.append(f"PAUSED{news} (f follows)")
        if not view.lines:
            words.append("nothing in it yet")
        if view.dropped or self._skipped:
            words.append("earlier lines are in the file")
        words.append(one_line(str(self._path.parent)))
        self.query_one("#head", Static).update(Content(" · ".join(words)))

    # --- other logs, searching

    def action_log(self, by: int) -> None:
        """The next log of the run's folder, or the one before."""
        logs = sorted(self._path.parent.glob("*.log"), key=lambda path: path.stat().st_mtime)
        if not logs:
            return
        place = logs.index(self._path) if self._path in logs else 0
        self._path = logs[(place + by) % len(logs)]
        self._begin()

    def action_search(self) -> None:
        """Ask what to search for."""
        search = self.query_one("#search", Input)
        search.add_class("-there")
        search.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Find it."""
        view = self.query_one(LogView)
        view.search(event.value)
        self._leave_search()

    def _leave_search(self) -> None:
        self.query_one("#search", Input).remove_class("-there")
        self.query_one(LogView).focus()

    def action_close(self) -> None:
        """Leave the search, or the log."""
        if self.query_one("#search", Input).has_focus:
            self._leave_search()
        else:
            self.dismiss()

    def action_copy(self) -> None:
        """Copy where the log is (OSC 52)."""
        self.app.copy_to_clipboard(str(self._path))
        self.notify("Copied the path.")
