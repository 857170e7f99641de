"""The run: its steps, its memory, its notices; stopping it, and the proof that it held nothing back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from quantui.domain.formatting import format_seconds
from quantui.domain.terminal_text import one_line
from quantui.tui.run_words import run_rows
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.run_memory import RunMemory
from quantui.tui.widgets.step_list import StepList
from quantui.tui.widgets.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from quantui.domain.explained_row import Row
    from quantui.tui.run_view import RunView

_NOTICES = 3


class RunScreen(StepScreen):
    """Follows ``session.run``. Goes on to Ready, or to Failure, by itself while it is the screen that is shown."""

    NAME = "run"
    HELP = (
        "The steps of the plan, one after the other, in a process of their own. What was made before is reused. "
        "The graph shows the memory of the run, the dotted line what was predicted. x stops the run and "
        "checks that everything it held was given back."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "again", "run again"),
        Binding("l", "log", "log"),
        Binding("x", "cancel", "stop"),
        Binding("g", "devices", "next GPUs"),
    ]
    DEFAULT_CSS = """
    RunScreen #said { max-height: 6; }
    RunScreen #notices { max-height: 4; color: $text-muted; }
    RunScreen.-tall #notices { max-height: 8; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._railed: object = None

    def compose_body(self) -> Iterable[Widget]:
        """Steps, how it stands, graphs, notices."""
        yield StepList(id="steps")
        yield Told(id="said")
        yield RunMemory(id="memory")
        yield Told(id="notices")

    def on_mount(self) -> None:
        """Show what is known at once."""
        self.call_after_refresh(self.run_changed)

    def on_screen_resume(self) -> None:
        """What happened while another screen was above this one is followed now."""
        self.call_after_refresh(self._move_on)

    @property
    def view(self) -> RunView | None:
        """The run, None when there is none (any more)."""
        return self.session.run

    # --- what is shown

    def run_changed(self) -> None:
        """Draw the run's state, and leave for Ready or Failure when it is there."""
        view = self.view
        if view is None:
            return
        if len(self.query("#steps, #said, #memory, #notices")) < 4:
            # Not all is there yet, or, while the app ends, no longer.
            self.call_after_refresh(self.run_changed)
            return
        self.query_one(StepList).show(view.state)
        self.query_one(RunMemory).show(view)
        self.query_one("#said", Told).tell(self._said(view))
        self._show_notices(view)
        step = view.state.current
        now = (
            step.id if step else "",
            view.outcome,
            view.cancelling,
            view.hosted is not None,
            view.followed,
            self.query_one(RunMemory).more(view),
        )
        if now != self._railed:
            # Rail and keys say nothing of how far a step is: they are not drawn ten times a second.
            self._railed = now
            self.update_rail()
        self._move_on()

    def _move_on(self) -> None:
        view = self.view
        if view is None or self.app.screen is not self:
            return
        if view.outcome == "failed":
            self.wizard.go("failure")
        elif view.serving and not view.cancelling:
            self.wizard.go("ready")

    @staticmethod
    def _said(view: RunView) -> Content:
        if view.living:
            if not view.cancelling:
                return Content()
            return Content.styled(
                "Stopping... its processes end, then it is checked that their memory is back.",
                "bold $text-warning",
            )
        assert view.state.finished is not None
        took = format_seconds(view.state.finished.seconds)
        how = {"ok": "Stopped", "failed": "Failed", "cancelled": "Cancelled"}[view.outcome]
        lines = [Content.styled(f"{how} after {took}.", "bold")]
        if view.freed is None:
            lines.append(Content("… looking whether its memory is back"))
        elif view.gave_back:
            lines.append(Content.styled(f"✓ {view.freed_words()}", "$text-success"))
        else:
            lines.append(Content.styled(f"! {view.freed_words()}", "$text-warning"))
        if view.plan is not None:
            again = "Enter runs it again and reuses what was made; Esc goes back to Review."
            lines.append(Content.styled(again, "$text-muted"))
        return Content("\n").join(lines)

    def _show_notices(self, view: RunView) -> None:
        notices = view.state.notices
        marks = {"warning": "!", "info": "·"}
        lines = [
            f"{marks.get(notice.level, '·')} {one_line(notice.text)}"
            for notice in notices[-_NOTICES:]
        ]
        earlier = len(notices) - len(lines)
        if earlier > 0:
            lines.insert(0, f"· {earlier} earlier: w")
        self.query_one("#notices", Told).tell("\n".join(lines))

    def why(self) -> Sequence[Row]:
        """Predicted and measured figures with their sources, and every notice."""
        return run_rows(self.view) if self.view is not None else ()

    # --- keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enter runs again what has ended, and goes on to what serves; x stops what lives."""
        view = self.view
        living = view is not None and view.living
        if action == "again":
            return bool(view and self._ended(view) and view.plan is not None)
        if action == "cancel":
            return True if living and view and not view.cancelling else None
        if action == "next":
            return False if view and not living else True if self.ready() else None
        if action == "why":
            return True if view is not None else None
        if action == "log":
            return True if view and view.hosted is not None else None
        if action == "devices":
            return bool(view and self.is_mounted and self.query_one(RunMemory).more(view))
        return super().check_action(action, parameters)

    @staticmethod
    def _ended(view: RunView) -> bool:
        """Over, with its memory looked at: before that another run could find its port taken."""
        return not view.living and view.followed

    def ready(self) -> bool:
        """Whether there is a server to use."""
        return self.view is not None and self.view.serving and not self.view.cancelling

    def action_again(self) -> None:
        """Run the same plan once more."""
        view = self.view
        if view and self._ended(view) and view.plan and view.facts and view.draft:
            self.wizard.start_run(view.plan, view.facts, view.draft)
            self.wizard.go("run")

    def action_log(self) -> None:
        """The log of the running step, else of the last one that ran."""
        from quantui.tui.screens.log import LogScreen

        view = self.view
        if view is not None and view.hosted is not None:
            self.app.push_screen(LogScreen(Path(view.hosted.log(view.last_step))))

    def action_devices(self) -> None:
        """Graphs of the next GPUs."""
        if self.view is not None:
            self.query_one(RunMemory).turn(self.view)

    def action_cancel(self) -> None:
        """Ask, then stop."""
        view = self.view
        if view is None or not view.living:
            return
        made = [step.title for step in view.state.steps if step.status == "done"]
        kept = f" What is finished stays: {'; '.join(map(one_line, made))}." if made else ""
        body = f"Every process of the run ends and its memory is given back.{kept}"
        replies = [Reply("on", "g", "go on with the run"), Reply("stop", "x", "stop it")]
        self.app.push_screen(Ask("Stop the run?", body, replies), self._cancelled)

    def _cancelled(self, reply: str | None) -> None:
        view = self.view
        if reply == "stop" and view is not None and view.living:
            view.cancel()
            self.run_changed()

    def action_back(self) -> None:
        """Back to Review; a run that lives is asked about."""
        view = self.view
        if view is None or not view.living:
            super().action_back()
            return
        body = "It goes on while you look at the review; b brings you back to it."
        replies = [
            Reply("keep", "k", "keep it running, and go to the review"),
            Reply("stop", "x", "stop it"),
        ]
        self.app.push_screen(Ask("Leave the run?", body, replies), self._left)

    def _left(self, reply: str | None) -> None:
        if reply == "keep":
            super().action_back()
        else:
            self._cancelled(reply)
