"""A deletion as it goes on, and what it came to: bytes really given back, what stayed and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

from quantui.domain.caches.deletion import Deleted, Kept
from quantui.tui.cache_plan_words import REPORT_COLUMNS, progress_foot, progress_head, report_cells
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.row_table import RowTable

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from quantui.tui.cache_job import DeletionJob, JobChanged

_REPLIES = (
    Reply("watch", "w", "go on, and watch it"),
    Reply("leave", "l", "go on without watching; c shows it again"),
    Reply("stop", "x", "stop after the file at hand; what is gone stays gone"),
)


class CacheProgress(ModalScreen[None]):
    """Shows a job; Escape asks while it goes on."""

    TITLE = "deleting"
    HELP = (
        "What is deleted, thing by thing, and the bytes that the disk really got back. Escape asks whether it is to go "
        "on without this panel, or to stop: a thing that was begun is then finished or left marked as half deleted, "
        "never as something whole."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "close"),
        Binding("enter", "close", "close", show=False),
        Binding("u", "undo", "undo"),
        Binding("q,ctrl+q", "app.leave", "quit", key_display="q"),
    ]
    DEFAULT_CSS = """
    CacheProgress { align: center middle; }
    CacheProgress > Vertical {
        width: 90%; max-width: 110; height: 80%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    CacheProgress #head { height: auto; max-height: 4; }
    CacheProgress #foot { height: auto; margin-bottom: 1; }
    CacheProgress ProgressBar { width: 100%; height: 1; }
    CacheProgress Bar { width: 1fr; }
    CacheProgress RowTable { height: 1fr; }
    """

    def __init__(self, job: DeletionJob) -> None:
        super().__init__()
        self.job = job

    def compose(self) -> ComposeResult:
        """What is done, the bar, the bytes, and the things that are through."""
        with Vertical() as box:
            box.border_title = Content(
                "moving to the trash" if self.job.plan.to_trash else "deleting"
            )
            yield Static(id="head", markup=False)
            yield ProgressBar(total=1.0, show_eta=False)
            yield Static(id="foot", markup=False)
            yield RowTable[Deleted | Kept](REPORT_COLUMNS, report_cells, id="through")
        yield KeyBar()

    def on_mount(self) -> None:
        """Follow it."""
        self.query_one(RowTable).focus()
        self.job.watch(self.post_message)
        self._draw()

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        self.job.unwatch(self.post_message)

    def on_job_changed(self, message: JobChanged) -> None:
        """Draw how far it is."""
        if message.job is self.job:
            self._draw()

    def _draw(self) -> None:
        job = self.job
        self.query_one("#head", Static).update(progress_head(job))
        self.query_one("#foot", Static).update(progress_foot(job))
        self.query_one(ProgressBar).update(progress=job.share)
        table = self.query_one(RowTable)
        through = tuple(job.done)
        if len(through) != len(table.rows):
            table.show(through, cursor=len(through) - 1 if job.living else table.cursor)
        if not job.living:
            job.seen = True
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Undo is for what was moved away."""
        del parameters
        if action == "undo":
            return True if self.job.plan.to_trash and not self.job.living else None
        return True

    def action_close(self) -> None:
        """Once it has ended."""
        if not self.job.living:
            self.dismiss()

    def action_leave(self) -> None:
        """Close; while it goes on, ask first."""
        if not self.job.living:
            self.dismiss()
        elif not self.job.cancelling:
            self.app.push_screen(
                Ask("Deleting goes on", "What becomes of it?", _REPLIES), self._replied
            )

    def _replied(self, reply: str | None) -> None:
        if reply == "stop":
            self.job.cancel()
            self._draw()
        elif reply == "leave":
            self.dismiss()
            if self.job.living:
                self.notify("It goes on; c shows it.", markup=False)

    def action_undo(self) -> None:
        """Bring back everything that was moved."""
        from quantui.tui.screens.cache import CacheScreen

        self.dismiss()
        for screen in self.app.screen_stack:
            if isinstance(screen, CacheScreen):
                screen.bring_back(None)
