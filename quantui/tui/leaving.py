"""Leaving the wizard: what becomes of a run that lives is asked, and nothing is left that was to be stopped."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.domain.terminal_text import one_line
from quantui.tui.bugs import TellsBugs
from quantui.tui.screens.ask import Ask, Reply

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from quantui.tui.app import QuantuiApp
    from quantui.tui.run_view import RunView


def leave(app: QuantuiApp) -> None:
    """Quit; with a run that would end with the wizard, ask first. Asked twice, it is asked once."""
    view = app.session.run
    if any(isinstance(screen, _LeaveAsk | Ending) for screen in app.screen_stack):
        return
    if app.session.places.get("cache") is not None:
        from quantui.tui.cache_leaving import asks_about_deletion

        if asks_about_deletion(app, lambda: leave(app)):
            return
    if view is None or not view.living:
        _exit(app, view)
    elif view.detached:
        _exit(app, view, going_on=True)
    elif view.cancelling:
        app.push_screen(Ending(view, stop=True))
    else:
        serving = view.serving
        body = (
            "The server goes on without this window, or stops with it."
            if serving
            else "The run goes on without this window and then serves, or stops here; what is finished stays."
        )
        replies = [
            Reply("keep", "k", "keep it running in the background, and quit"),
            Reply("stop", "x", "stop it and quit; nothing is left running"),
            Reply("stay", "s", "stay here"),
        ]
        title = "Quit while the server runs?" if serving else "Quit while it runs?"
        app.push_screen(_LeaveAsk(title, body, replies), lambda reply: _replied(app, reply))


def keep_and_leave(app: QuantuiApp) -> None:
    """Let the run go on in the background, and quit."""
    view = app.session.run
    if view is None or not view.living or view.detached:
        leave(app)
    else:
        app.push_screen(Ending(view, stop=False))


def _replied(app: QuantuiApp, reply: str | None) -> None:
    view = app.session.run
    if view is None or reply not in ("keep", "stop"):
        return
    app.push_screen(Ending(view, stop=reply == "stop"))


def _exit(app: QuantuiApp, view: RunView | None, *, going_on: bool = False) -> None:
    """End the app; its result is the exit code of the run, 0 for one that goes on."""
    if view is not None:
        view.stop.set()
    from rich.text import Text

    finished = None if view is None else view.state.finished
    message = None
    if view is not None and going_on:
        pid = f" (process {view.hosted.pid})" if view.hosted else ""
        message = (
            f"The run {one_line(view.state.run_id)} goes on{pid}.\n"
            "To find it again: quantui, then b."
        )
    app.exit(finished.exit_code if finished else 0, message=Text(message) if message else None)


class _LeaveAsk(Ask):
    """The question of :func:`leave`."""


class Ending(TellsBugs, ModalScreen[None]):
    """Lets a run go, or stops it, before the app ends; says what it waits for. Escape stays in the wizard."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "stay")]
    DEFAULT_CSS = """
    Ending { align: center middle; }
    Ending > Vertical {
        width: 60; max-width: 95%; height: auto;
        border: round $warning; padding: 1 2; background: $surface;
    }
    """

    class Kept(Message):
        """The host said whether the run goes on alone."""

        def __init__(self, kept: bool) -> None:
            self.kept = kept
            super().__init__()

    def __init__(self, view: RunView, *, stop: bool) -> None:
        super().__init__()
        self._view = view
        self._stopping = stop
        self._left = threading.Event()

    @property
    def wizard(self) -> QuantuiApp:
        """The app, by its type."""
        return cast("QuantuiApp", self.app)

    def compose(self) -> ComposeResult:
        """One line."""
        words = (
            "Stopping... the processes of the run end, and their memory comes back."
            if self._stopping
            else "Letting the run go on in the background..."
        )
        with Vertical():
            yield Static(Content(words), markup=False)

    def on_mount(self) -> None:
        """Begin."""
        if self._stopping:
            if not self._view.cancelling:
                self._view.cancel()
            self.set_interval(0.1, self._look)
        else:
            self._keep()

    def on_unmount(self) -> None:
        """Whoever waits for the host to start need not any more."""
        self._left.set()

    def _look(self) -> None:
        """Gone and looked at: quit. What cannot be proven is left on the Run screen for the person to see."""
        if not self._view.followed:
            return
        if self._view.gave_back or self._view.hosted is None:
            _exit(self.wizard, self._view)
        else:
            self.dismiss()
            self.notify(
                f"Not everything came back: {self._view.freed_words()}. q quits.",
                severity="warning",
                markup=False,
            )

    @work(thread=True, group="leave", exit_on_error=False)
    def _keep(self) -> None:
        # The host may be starting at this moment.
        while self._view.hosted is None and not self._view.followed:
            if self._left.wait(0.05):
                return
        hosted = self._view.hosted
        self.post_message(self.Kept(hosted is not None and hosted.detach()))

    def on_ending_kept(self, message: Kept) -> None:
        """Quit, or say that there is nothing to keep."""
        if message.kept:
            self._view.detached = True
            _exit(self.wizard, self._view, going_on=True)
        else:
            self.dismiss()
            self.notify("The run has ended meanwhile.", markup=False)
