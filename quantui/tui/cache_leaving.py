"""Leaving the wizard while something is deleted: asked first, and waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.tui.cache_kept import kept_of
from quantui.tui.cache_plan_words import progress_foot, progress_head
from quantui.tui.screens.ask import Ask, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from quantui.tui.app import QuantuiApp
    from quantui.tui.cache_job import DeletionJob, JobChanged

_REPLIES = (
    Reply("stay", "s", "stay here; it goes on"),
    Reply("wait", "w", "quit once it is done"),
    Reply("stop", "x", "stop after the file at hand, and quit"),
)


def asks_about_deletion(app: QuantuiApp, quit_: Callable[[], None]) -> bool:
    """Whether something is being deleted: what becomes of it is asked, and ``quit_`` called once it has ended."""
    job = kept_of(app.session).job
    if job is None or not job.living:
        return False
    if not any(isinstance(screen, _DeletionAsk | DeletionEnding) for screen in app.screen_stack):

        def replied(reply: str | None) -> None:
            if reply == "stop":
                job.cancel()
            if reply in ("stop", "wait"):
                app.push_screen(DeletionEnding(job, quit_))

        body = "A thing that was begun is finished, or left marked as half deleted."
        app.push_screen(_DeletionAsk("Quit while things are deleted?", body, _REPLIES), replied)
    return True


class _DeletionAsk(Ask):
    """The question of :func:`asks_about_deletion`."""


class DeletionEnding(ModalScreen[None]):
    """Waits for a deletion to end, and quits. Escape stays in the wizard."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "stay")]
    DEFAULT_CSS = """
    DeletionEnding { align: center middle; }
    DeletionEnding > Vertical {
        width: 72; max-width: 95%; height: auto;
        border: round $warning; padding: 1 2; background: $surface;
    }
    DeletionEnding Static { height: auto; }
    """

    def __init__(self, job: DeletionJob, quit_: Callable[[], None]) -> None:
        super().__init__()
        self._job = job
        self._quit = quit_

    def compose(self) -> ComposeResult:
        """How far it is."""
        with Vertical():
            yield Static(id="head", markup=False)
            yield Static(id="foot", markup=False)

    def on_mount(self) -> None:
        """Follow it; it may have ended while it was asked."""
        self._job.watch(self.post_message)
        self._look()

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        self._job.unwatch(self.post_message)

    def on_job_changed(self, message: JobChanged) -> None:
        """Draw it, or quit."""
        if message.job is self._job:
            self._look()

    def _look(self) -> None:
        self.query_one("#head", Static).update(progress_head(self._job))
        self.query_one("#foot", Static).update(progress_foot(self._job))
        if not self._job.living:
            self.dismiss()
            self.call_later(self._quit)
