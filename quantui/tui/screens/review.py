"""Review: what will be done, in steps with time and disk; the profile, the exact commands, and the way on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from quantui.domain.errors import QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import one_line
from quantui.tui.planner import planned_here
from quantui.tui.review_words import (
    commands_content,
    commands_text,
    steps_content,
    toml_content,
)
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.screens.step import StepScreen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual import events
    from textual.widget import Widget

    from quantui.domain.explained_row import Row
    from quantui.tui.planner import Planned

_PANES = ("steps", "profile", "commands")


class Reading(Message):
    """A large file is read to know it by its content."""

    def __init__(self, name: str, done: int, total: int) -> None:
        self.name, self.done, self.total = name, done, total
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the newest is worth showing."""
        return isinstance(message, Reading)


class ReviewScreen(StepScreen):
    """Steps above; below, the profile and the commands side by side, or one of them where it is narrow."""

    NAME = "review"
    TITLE = "review"
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
    ReviewScreen #steps { height: auto; max-height: 50%; }
    ReviewScreen.-short #steps { max-height: 11; }
    ReviewScreen #lower { height: 1fr; min-height: 5; }
    ReviewScreen VerticalScroll {
        border: round $foreground 30%; padding: 0 1;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    ReviewScreen VerticalScroll:focus { border: round $primary; }
    ReviewScreen VerticalScroll Static { height: auto; }
    ReviewScreen #profile, ReviewScreen #commands { width: 1fr; height: 1fr; }
    ReviewScreen.-narrow .-behind { display: none; }
    ReviewScreen #here { height: auto; color: $text-warning; display: none; }
    ReviewScreen #here.-there { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._planned: Planned | None = None
        self._whole = False
        self._pane = "profile"
        self._starting = False

    def compose_body(self) -> Iterable[Widget]:
        """Three panes that scroll, and why nothing can be started where that is so."""
        with VerticalScroll(id="steps") as steps:
            steps.border_title = "steps"
            yield Static("Planning…", id="steps-text", markup=False)
        with Horizontal(id="lower"):
            with VerticalScroll(id="profile"):
                yield Static(id="profile-text", markup=False)
            with VerticalScroll(id="commands"):
                yield Static(id="commands-text", markup=False)
        yield Static(id="here", markup=False)

    def on_mount(self) -> None:
        """Plan beside the interface."""
        self._show_pane("profile")
        self._say_where()
        self.plan()

    def on_resize(self, event: events.Resize) -> None:
        """Columns follow the width."""
        del event
        self.call_after_refresh(self._draw)

    # --- the plan

    def plan(self) -> None:
        """Plan what the answers say now."""
        self._planned = None
        self.run_worker(self._plan(), group="plan", exclusive=True, exit_on_error=False)

    async def _plan(self) -> None:
        session = self.session
        draft = session.draft
        if draft is None:
            self._steps("There is nothing to plan yet: Esc goes back to the method.")
            return
        try:
            # This machine is read anew: memory may have been given back since the first step.
            planned = await asyncio.to_thread(
                planned_here, draft, self.wizard.stand_in, progress=self._progress
            )
        except QuantuiError as error:
            session.plan = session.facts = None
            self._steps(
                "This cannot be run as it is: below is why. Esc goes back, o changes options."
            )
            self.tell(error)
            self.refresh_bindings()
            return
        session.plan, session.facts = planned.plan, planned.facts
        self._planned = planned
        self._draw()
        self.refresh_bindings()

    def _progress(self, name: str, done: int, total: int) -> None:
        """Called in the planning thread."""
        self.post_message(Reading(name, done, total))

    def on_reading(self, message: Reading) -> None:
        """Say why nothing seems to happen."""
        if self._planned is None:
            size = f"{format_bytes(message.done)} of {format_bytes(message.total)}"
            self._steps(
                f"Planning… reading {one_line(message.name)} to know it by its content: {size}"
            )

    def _steps(self, text: str) -> None:
        self.query_one("#steps-text", Static).update(Content(text))

    def _draw(self) -> None:
        planned = self._planned
        if planned is None:
            return
        from quantui.runtime.profile_file import render_chosen, render_profile

        pane = self.query_one("#steps", VerticalScroll)
        width = max(60, pane.scrollable_content_region.width)
        text = steps_content(planned, width)
        self.query_one("#steps-text", Static).update(text)
        profile = (render_profile if self._whole else render_chosen)(planned.profile)
        self.query_one("#profile-text", Static).update(toml_content(profile))
        self.query_one("#commands-text", Static).update(commands_content(planned))
        self._name_panes()

    def _name_panes(self) -> None:
        narrow = self.has_class("-narrow")
        kind = "as saved" if self._whole else "what is chosen"
        self.query_one("#profile").border_title = f"profile, {kind} (e)"
        self.query_one("#commands").border_title = "commands"
        for name, other in (("profile", "commands"), ("commands", "profile")):
            self.query_one(f"#{name}").border_subtitle = f"tab: {other}" if narrow else ""

    def _say_where(self) -> None:
        """Nothing is run on a machine that is only described; the command for it is told."""
        line = self.query_one("#here", Static)
        line.set_class(self.session.simulated, "-there")
        path = self.session.profile_path
        file = one_line(str(path)) if path else "prod.toml"
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
        """A run that was to be stopped first has ended: now this one begins."""
        super().run_changed()
        view = self.session.run
        if self._starting and (view is None or not view.living):
            self._starting = False
            self._start()

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
        return super().check_action(action, parameters)

    def why(self) -> Sequence[Row]:
        """The estimate's figures, then those of each step."""
        if self._planned is None:
            return ()
        from quantui.tui.review_why import plan_rows

        return plan_rows(self._planned)

    def action_pane(self, by: int) -> None:
        """Go to the next pane; where only one of the lower two has room, it takes the place of the other."""
        at = next((n for n, name in enumerate(_PANES) if self.query_one(f"#{name}").has_focus), 0)
        self._show_pane(_PANES[(at + by) % len(_PANES)])

    def _show_pane(self, name: str) -> None:
        if name != "steps":
            self._pane = name
        for other in _PANES[1:]:
            self.query_one(f"#{other}").set_class(other != self._pane, "-behind")
        self.query_one(f"#{name}").focus()
        self._name_panes()

    def action_whole(self) -> None:
        """The profile as it is saved, every option explained, or only what is chosen."""
        self._whole = not self._whole
        self._show_pane("profile")
        self._draw()

    def action_copy(self, what: str) -> None:
        """Copy the commands or the profile, over SSH too (OSC 52)."""
        if self._planned is None:
            return
        from quantui.runtime.profile_file import render_profile

        if what == "commands":
            self.app.copy_to_clipboard(commands_text(self._planned))
            self.notify("Copied the commands.")
        else:
            self.app.copy_to_clipboard(render_profile(self._planned.profile))
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
        """The path of the profile may have been chosen meanwhile."""
        self._say_where()
