"""The app: the session, the way between steps, and the two kinds of work that outlive a screen (probing, the run)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.worker import WorkerFailed, get_current_worker

from quantui.domain.errors import QuantuiError
from quantui.tui.messages import (
    BackgroundCounted,
    EnginesListed,
    HardwareProbed,
    RunChanged,
    RunLost,
)
from quantui.tui.screens.step import StepScreen
from quantui.tui.session import Session
from quantui.tui.steps import step_named
from quantui.tui.terminal import Terminal
from quantui.tui.theme import THEMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import SystemCommand
    from textual.screen import Screen

    from quantui.domain.draft import Draft
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.plan import Plan
    from quantui.engines.planning import Facts
    from quantui.tui.run_view import RunView

_TELL_EVERY_S = 0.1
"""How often screens hear of a run: a merge may send hundreds of events a second."""
_OFTEN = ("memory", "step.progress")


class QuantuiApp(App[int]):
    """The wizard. Its result is the exit code of the last run, 0 without one."""

    TITLE = "quantui"
    CSS_PATH = "quantui.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("ctrl+q", "leave", "quit", show=False),
        Binding("question_mark", "help", "help", key_display="?", tooltip="this help"),
        Binding("c", "cache", "cache", tooltip="cache: what takes the disk, the largest first"),
        Binding("h", "history", "history", tooltip="history: earlier runs, compared and plotted"),
        Binding(
            "b",
            "background",
            "background",
            show=False,
            tooltip="background: runs that live without this window",
        ),
    ]

    def __init__(
        self, report: HardwareReport | None = None, described_by: str | None = None
    ) -> None:
        """``report`` stands for a machine that ``described_by`` describes; None: this one is probed."""
        super().__init__()
        self.session = Session(described_by)
        self.terminal = Terminal(self)
        self.background_count = 0
        self.probing: tuple[str, ...] = ("hardware", "engines")
        """What is still to be looked at, in order."""
        self._given = report
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def on_mount(self) -> None:
        """Show the first step; whatever is slow begins once it is on the screen."""
        self.push_screen(step_named("hardware").screen())
        self.call_after_refresh(self.probe)

    def on_unmount(self) -> None:
        """However it ends: nobody follows the run any more, and the terminal has its own title back."""
        if self.session.run is not None:
            self.session.run.stop.set()
        self.terminal.close()

    async def on_event(self, event: events.Event) -> None:
        """Give letters that were typed ahead to the input that the key before them has gone to.

        Textual sends a key to what has the focus when it arrives, and an input lets no letter of its own out again. One
        that comes up to here while an input has the focus came in one packet with the key that went there.
        """
        if isinstance(event, events.Key) and event.is_forwarded:
            focused = self.focused
            if focused is not None and focused.check_consume_key(event.key, event.character):
                focused.post_message(events.Key(event.key, event.character))
                return
        await super().on_event(event)

    # --- the way between steps

    def go(self, name: str) -> None:
        """Show a step on a fresh screen, whatever lies above it being closed."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        self.switch_screen(step_named(name).screen())

    @property
    def step(self) -> StepScreen | None:
        """The step that is shown, also below a dialog."""
        shown = [screen for screen in self.screen_stack if isinstance(screen, StepScreen)]
        return shown[-1] if shown else None

    @property
    def _drawn_step(self) -> StepScreen | None:
        """The step, once its widgets are there: one that is being made draws what the session knows by itself."""
        step = self.step
        return step if step is not None and step.is_mounted else None

    # --- the machine

    @property
    def stand_in(self) -> HardwareReport | None:
        """The report that was given for the machine; None: it is this one, and can be read again at any time."""
        return self._given

    def probe(self) -> None:
        """Read the machine (again), then the engines; count what runs on it."""
        self.probing = ("hardware", "engines")
        self._probe()
        self._count_background()

    @work(thread=True, exclusive=True, group="background-count")
    def _count_background(self) -> None:
        from quantui.runtime.living_runs import living_runs

        self.post_message(BackgroundCounted(len(living_runs())))

    @work(thread=True, exclusive=True, group="probe")
    def _probe(self) -> None:
        from quantui.runtime.probe import probe_hardware
        from quantui.tui.cache_ahead import load_ahead
        from quantui.tui.device_details import load_words

        load_words()
        report = self._given or probe_hardware()
        self.post_message(HardwareProbed(report))
        from quantui.runtime.engines import list_engines

        try:
            self.post_message(EnginesListed(tuple(list_engines())))
        except QuantuiError as error:
            self.post_message(EnginesListed((), error))
        load_ahead()

    def on_hardware_probed(self, message: HardwareProbed) -> None:
        """Keep the report; what was computed from another one is forgotten."""
        if self.session.hardware is not None and self.session.hardware != message.report:
            self.session.recommended = None
        self.session.hardware = message.report
        self.probing = ("engines",)
        if (step := self._drawn_step) is not None:
            step.hardware_changed()

    def on_engines_listed(self, message: EnginesListed) -> None:
        """Keep the engines' states."""
        self.session.engines = message.engines
        self.probing = ()
        if (step := self._drawn_step) is not None:
            step.hardware_changed()
        if message.error is not None:
            self._tell(message.error)

    def on_background_counted(self, message: BackgroundCounted) -> None:
        """Runs of an earlier wizard, or of another one, are told at the start."""
        self.background_count = message.count
        if (step := self._drawn_step) is not None:
            step.background_changed()

    # --- the run

    def start_run(self, plan: Plan, facts: Facts, draft: Draft) -> None:
        """Run a plan in a process of its own and follow it. One at a time: an earlier one has to have ended."""
        assert self.session.run is None or not self.session.run.living or self.session.run.detached
        from quantui.tui.run_view import RunView

        view = RunView(plan, facts, draft)
        self._show_run(view)
        self._follow(view, None)

    def attach(self, run_id: str) -> None:
        """Follow a run that was left in the background, or that another quantui started."""
        from quantui.tui.run_view import RunView

        view = RunView()
        view.detached = True
        self._show_run(view)
        self._follow(view, run_id)

    def _show_run(self, view: RunView) -> None:
        if self.session.run is not None:
            self.session.run.stop.set()
        hardware = self.session.hardware
        view.memory.ram_total = hardware.host.ram_total_bytes if hardware else None
        self.session.run = view

    @work(thread=True, group="run")
    def _follow(self, view: RunView, run_id: str | None) -> None:
        """Loop over the run's events; the interface hears of them ten times a second at most."""
        from quantui.runtime.hosted_run import start_run
        from quantui.runtime.living_runs import attach

        worker = get_current_worker()
        told = 0.0
        try:
            if run_id is None:
                assert view.plan is not None
                view.hosted = start_run(view.plan)
                if view.cancelling:
                    view.hosted.cancel()
            else:
                view.hosted = attach(run_id)
            for event in view.hosted.events(view.stop):
                view.heard(event)
                # The last of a burst may be the last for seconds: only what comes many times a second may wait.
                due = event.type not in _OFTEN or time.monotonic() - told >= _TELL_EVERY_S
                if due and not worker.is_cancelled:
                    told = time.monotonic()
                    self.post_message(RunChanged(view))
        except QuantuiError as error:
            self.post_message(RunLost(error))
        finally:
            # The end is shown at once, the proof that nothing is held any more when it is there.
            self.post_message(RunChanged(view))
            view.settle()
            view.followed = True
            self.post_message(RunChanged(view))

    def on_run_changed(self, message: RunChanged) -> None:
        """Let the step that is shown draw it; the terminal's title and bell tell it to who looks elsewhere."""
        if message.view is not self.session.run:
            return
        self.terminal.follow(message.view)
        if (step := self._drawn_step) is not None:
            step.run_changed()

    def on_run_lost(self, message: RunLost) -> None:
        """The run could not be started or followed: say so where the person is."""
        self.session.run = None
        self.go("review")
        self.call_after_refresh(self._tell, message.error)

    def _tell(self, error: QuantuiError) -> None:
        if self.step is not None:
            self.step.tell(error)

    # --- screens over the steps, and the end

    def action_help(self) -> None:
        """The keys of the screen, and what it is for."""
        from quantui.tui.screens.help import Help

        self.push_screen(Help(self.screen))

    def action_cache(self) -> None:
        """What takes the disk."""
        from quantui.tui.screens.cache import CacheScreen

        self._over(CacheScreen)

    def action_history(self) -> None:
        """Earlier runs."""
        from quantui.tui.screens.history import HistoryScreen

        self._over(HistoryScreen)

    def action_background(self) -> None:
        """Runs that live without this wizard."""
        from quantui.tui.screens.background import BackgroundScreen

        self._over(BackgroundScreen)

    def _over(self, kind: type[Screen[Any]]) -> None:
        """Show a screen over the step, once."""
        if not isinstance(self.screen, kind):
            self.push_screen(kind())

    def action_leave(self) -> None:
        """Quit; while a run lives it is asked what becomes of it."""
        from quantui.tui.leaving import leave

        leave(self)

    @property
    def defect(self) -> BaseException | None:
        """The exception that ended the app, if one did; of a worker what it raised itself."""
        found = self._exception
        return found.error if isinstance(found, WorkerFailed) else found

    def _fatal_error(self) -> None:
        """End without Textual's traceback over the terminal: who started the app reports the defect."""
        self._close_messages_no_wait()

    async def action_quit(self) -> None:
        """Textual's own way out asks too."""
        self.action_leave()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every step that can be reached, every screen, themes."""
        from quantui.tui.commands import system_commands

        yield from system_commands(self, screen)
