"""Review: what will be done, in steps with time and disk; the profile, the exact commands, and the way on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from quantui.domain.errors import QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import one_line
from quantui.tui.planner import planned_here, room_here
from quantui.tui.review_words import commands_text
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.plan_panes import PlanPanes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual import events
    from textual.widget import Widget

    from quantui.domain.explained_row import Row
    from quantui.tui.planner import Planned


class Reading(Message):
    """A large file is read to know it by its content."""

    def __init__(self, name: str, done: int, total: int) -> None:
        self.name, self.done, self.total = name, done, total
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the newest is worth showing."""
        return isinstance(message, Reading)


class RoomSeen(Message):
    """What could go for a plan whose disks are too small, or over the budget."""

    def __init__(self, planned: Planned, lines: tuple[str, ...]) -> None:
        self.planned, self.lines = planned, lines
        super().__init__()


class ReviewScreen(StepScreen):
    """The plan in its panes; Enter starts it."""

    NAME = "review"
    TITLE = "review"
    HELP = (
        "What a run would do, step by step, with the time, disk and downloads that are known before. "
        "↺ marks what was made before and is used again. The profile is what s saves and `quantui --profile FILE` does "
        "again; the commands do the same by hand. Engines that are missing are installed as steps of the run: Enter is "
        "your word for it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "next", "run"),
        Binding("o", "options", "options"),
        Binding("s", "save", "save"),
        Binding("y", "copy('commands')", "copy"),
        Binding("t,Y", "copy('profile')", "copy the profile", show=False),
        Binding("e", "whole", "the whole profile", show=False),
        Binding("tab", "pane(1)", "next pane", show=False),
        Binding("shift+tab", "pane(-1)", "pane before", show=False),
    ]
    DEFAULT_CSS = """
    ReviewScreen #here { height: auto; color: $text-warning; display: none; }
    ReviewScreen #here.-there { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._planned: Planned | None = None
        self._starting = False
        self._start_planned = False

    def compose_body(self) -> Iterable[Widget]:
        """The plan, and why nothing can be started where that is so."""
        yield PlanPanes()
        yield Static(id="here", markup=False)

    def on_mount(self) -> None:
        """Plan beside the interface."""
        self.panes.bring("profile")
        self._say_where()
        self.plan()

    def on_resize(self, event: events.Resize) -> None:
        """Columns follow the width."""
        del event
        self.call_after_refresh(self.panes.draw)

    @property
    def panes(self) -> PlanPanes:
        """Steps, profile and commands."""
        return self.query_one(PlanPanes)

    # --- the plan

    def plan(self) -> None:
        """Plan what the answers say now."""
        self._planned = None
        self.panes.outdate()
        self.refresh_bindings()
        self.run_worker(self._plan(), group="plan", exclusive=True)

    async def _plan(self) -> None:
        session = self.session
        draft = session.draft
        if draft is None:
            self.panes.say("There is nothing to plan yet: Esc goes back to the method.")
            return
        try:
            # This machine is read anew: memory may have been given back since the first step.
            planned = await asyncio.to_thread(
                planned_here, draft, self.wizard.stand_in, progress=self._progress
            )
        except QuantuiError as error:
            session.plan = session.facts = None
            self._start_planned = False
            self.panes.say(
                "This cannot be run as it is: below is why. Esc goes back, o changes options."
            )
            self.tell(error)
            self.refresh_bindings()
            return
        session.plan, session.facts = planned.plan, planned.facts
        self._planned = planned
        self.panes.show(planned)
        self.refresh_bindings()
        if self._start_planned:
            self._start()
        elif not session.simulated:
            self._look_for_room(planned)

    @work(thread=True, group="room", exclusive=True, exit_on_error=False)
    def _look_for_room(self, planned: Planned) -> None:
        self.post_message(RoomSeen(planned, room_here(planned)))

    def on_room_seen(self, message: RoomSeen) -> None:
        """Show it, unless something else was planned meanwhile."""
        if message.lines and self._planned is message.planned:
            self._planned = replace(message.planned, room=message.lines)
            self.panes.show(self._planned)

    def _progress(self, name: str, done: int, total: int) -> None:
        """Called in the planning thread."""
        self.post_message(Reading(name, done, total))

    def on_reading(self, message: Reading) -> None:
        """Say why nothing seems to happen."""
        if self._planned is None:
            size = f"{format_bytes(message.done)} of {format_bytes(message.total)}"
            self.panes.say(
                f"Planning… reading {one_line(message.name)} to know it by its content: {size}"
            )

    def _say_where(self) -> None:
        """Nothing is run on a machine that is only described; the command for it is told."""
        line = self.query_one("#here", Static)
        line.set_class(self.session.simulated, "-there")
        path = self.session.profile_path
        file = one_line(path.name) if path else "prod.toml"
        line.update(
            Content(f"A described machine runs nothing. s saves; there: quantui --profile {file}")
        )

    # --- the way on

    def ready(self) -> bool:
        """Whether there is a plan that this machine can run."""
        return self._planned is not None and not self.session.simulated and not self._starting

    def action_next(self) -> None:
        """Start; a run that lives already is asked about first."""
        view = self.session.run
        if not self.ready():
            return
        if view is None or not view.living:
            self._start()
            return
        replies = (
            Reply("show", "a", "show that run"),
            Reply("stop", "x", "stop it, then start this one"),
        )
        body = "A run lives already. Two at once would fight over the memory."
        self.app.push_screen(Ask("Start while another runs?", body, replies), self._answered)

    def _answered(self, reply: str | None) -> None:
        view = self.session.run
        if reply == "show":
            self.wizard.go("run")
        elif reply == "stop" and view is not None:
            self._starting = True
            view.cancel()
            self.notify("Stopping the other run…")
            self.run_changed()

    def run_changed(self) -> None:
        """A run that was to be stopped first has ended: plan with the memory it gave back, and begin."""
        super().run_changed()
        view = self.session.run
        if self._starting and (view is None or not view.living):
            self._starting = False
            self._start_planned = True
            self.plan()

    def _start(self) -> None:
        planned = self._planned
        if planned is None:
            return
        self.wizard.start_run(planned.plan, planned.facts, planned.draft)
        self.wizard.go("run")

    # --- keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey what needs a plan; whether there are figures is known without working them out."""
        if action in ("why", "copy", "save"):
            return True if self._planned is not None else None
        if action == "options":
            return True if self.session.draft is not None else None
        return super().check_action(action, parameters)

    def why(self) -> Sequence[Row]:
        """The estimate's figures, then those of each step."""
        if self._planned is None:
            return ()
        from quantui.tui.review_why import plan_rows

        return plan_rows(self._planned)

    def action_pane(self, by: int) -> None:
        """Go to the next pane, or the one before."""
        self.panes.go(by)

    def action_whole(self) -> None:
        """The profile as it is saved, every option explained, or only what is chosen."""
        self.panes.whole = not self.panes.whole
        self.panes.bring("profile")
        self.panes.draw()

    def action_copy(self, what: str) -> None:
        """Copy the commands or the profile, over SSH too (OSC 52)."""
        if self._planned is None:
            return
        if what == "commands":
            self.app.copy_to_clipboard(commands_text(self._planned))
            self.notify("Copied the commands.")
        else:
            self.app.copy_to_clipboard(self._planned.profile)
            self.notify("Copied the profile.")

    def action_save(self) -> None:
        """Save the profile."""
        from quantui.tui.saving import save_profile

        save_profile(self)

    def action_options(self) -> None:
        """Every option of the profile, by name."""
        from quantui.tui.screens.options import OptionsScreen

        self.app.push_screen(OptionsScreen(), self._options_left)

    def _options_left(self, changed: bool | None) -> None:
        if changed:
            self.tell(None)
            self.plan()

    def on_screen_resume(self) -> None:
        """The path of the profile may have been chosen meanwhile, or room been made."""
        self._say_where()
        if self._planned is not None and self._planned.room:
            self.plan()
