"""A run that failed: what, why, the fix; fixes are keys that change the options and run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantui.domain.errors import QuantuiError
from quantui.domain.fixes import MOST, Fix, fixes_for
from quantui.domain.terminal_text import one_line, sanitize
from quantui.tui.run_words import run_rows
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.problem import problem_content
from quantui.tui.widgets.step_list import StepList
from quantui.tui.widgets.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from textual.widget import Widget

    from quantui.domain.choosing.recommendation import Choice
    from quantui.domain.draft import Draft
    from quantui.domain.explained_row import Row
    from quantui.domain.plan import Plan
    from quantui.engines.planning import Facts
    from quantui.runtime.hosted_run import HostedRun
    from quantui.tui.run_view import RunView


class FailureScreen(StepScreen):
    """Stands in for Run when ``session.run`` has failed."""

    NAME = "failure"
    HELP = (
        "The run failed. A number makes the change it stands for, plans again and starts a new run; what was finished "
        "before is reused, so that it goes on from the step that failed. y copies a report for whoever is asked for "
        "help: it holds no environment variables and no keys. When a disk is full, 1 opens the caches; back here, "
        "the last number tries again."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                str(number), f"fix({number})", "fix, run again", key_display="1-9", show=number == 1
            )
            for number in range(1, MOST + 1)
        ),
        Binding("y", "copy", "report"),
        Binding("l", "log", "log"),
    ]
    DEFAULT_CSS = """
    FailureScreen #story { height: 1fr; }
    FailureScreen #story Static { height: auto; }
    FailureScreen #steps { margin: 1 0; }
    FailureScreen #doing { color: $text-warning; }
    FailureScreen #fixes { height: auto; max-height: 60%; background: $background; }
    """

    class LogRead(Message):
        """The last lines of the failed step's log."""

        def __init__(self, lines: tuple[str, ...]) -> None:
            self.lines = lines
            super().__init__()

    class Planned(Message):
        """A fix was planned: with a plan, or what keeps it from being one."""

        def __init__(
            self, draft: Draft, made: tuple[Plan, Facts] | None, error: QuantuiError | None
        ) -> None:
            self.draft = draft
            self.made = made
            self.error = error
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self._fixes: tuple[Fix, ...] = ()
        self._log: tuple[str, ...] = ()
        self._planning = False
        self._later: QuantuiError | None = None

    @property
    def view(self) -> RunView | None:
        """The run that failed."""
        return self.session.run

    @property
    def error(self) -> QuantuiError:
        """What is shown: why the run failed, or why its fix could not be planned."""
        finished = self.view.state.finished if self.view else None
        told: dict[str, Any] = (finished.error if finished else None) or {}
        return self._later or QuantuiError.from_dict(told)

    def compose_body(self) -> Iterable[Widget]:
        """The error, the steps, what can be done."""
        with VerticalScroll(id="story"):
            yield Static(id="error", markup=False)
            yield StepList(id="steps")
            yield Static(id="log-lines", markup=False)
        yield Told(id="doing")
        yield OptionList(id="fixes")

    def on_mount(self) -> None:
        """Show the failure; the log is read meanwhile."""
        self._show()
        self.query("#fixes").focus()
        view = self.view
        if view is not None and view.hosted is not None:
            self._read_log(self._log_path(view.hosted))

    @work(thread=True, group="log", exit_on_error=False)
    def _read_log(self, path: Path) -> None:
        from quantui.runtime.log_tail import last_lines
        from quantui.tui.failure_report import LOG_LINES

        self.post_message(self.LogRead(tuple(last_lines(path, LOG_LINES))))

    def on_failure_screen_log_read(self, message: LogRead) -> None:
        """The last lines stand below the steps."""
        self._log = message.lines
        self._show_log()

    # --- what is shown

    def _show(self) -> None:
        view = self.view
        if view is None:
            return
        if not self.query(StepList):
            self.call_after_refresh(self._show)
            return
        self.query_one(StepList).show(view.state)
        self.query_one("#error", Static).update(problem_content(self.error))
        self._fixes = self._possible(view)
        fixes = self.query_one("#fixes", OptionList)
        fixes.clear_options()
        fixes.add_options(
            Option(Content.assemble(Content.styled(f"{number}  ", "bold"), sanitize(fix.words)))
            for number, fix in enumerate(self._fixes, 1)
        )
        fixes.display = bool(self._fixes)
        if self._fixes:
            fixes.highlighted = 0
        kept = [step.id for step in view.state.steps if step.status in ("done", "reused")]
        reused = [
            one_line(step)
            for step in kept
            if step.startswith(("merge", "quantize", "download", "install"))
        ]
        words = "What can be done" if self._fixes else "Esc goes back to Review."
        if self._fixes and reused:
            words += f"; {', '.join(reused)} is finished and reused"
        self._doing(words + (":" if self._fixes else ""))
        self._show_log()
        self.update_rail()

    def _show_log(self) -> None:
        room = 12 if self.has_class("-tall") else 5
        lines = [sanitize(line) for line in self._log[-room:]]
        if lines:
            lines.insert(0, "The log ends with (l: all of it):")
        for shown in self.query("#log-lines").results(Static):
            shown.update(Content.styled("\n".join(lines), "$text-muted"))

    def _doing(self, words: str) -> None:
        self.query_one("#doing", Told).tell(words)

    def _possible(self, view: RunView) -> tuple[Fix, ...]:
        """Fixes for what this wizard planned; of somebody else's run only the failure is known."""
        if view.draft is None:
            return ()
        choices: Sequence[Choice] = ()
        recommended = self.session.recommended
        if recommended is not None:
            choices = recommended.recommendation.choices
        return fixes_for(self.error, view.draft, view.plan, view.state, choices)

    def run_changed(self) -> None:
        """Nothing moves any more but the proof that memory is back."""
        self.update_rail()

    def why(self) -> Sequence[Row]:
        """Predicted and measured figures of the run, and its notices."""
        return run_rows(self.view) if self.view is not None else ()

    # --- keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Digits for the fixes there are."""
        if action == "fix":
            number = parameters[0] if parameters else 0
            there = isinstance(number, int) and number <= len(self._fixes)
            return True if there and not self._planning else None
        if action == "next":
            return False
        if action == "why":
            return True if self.view is not None else None
        return super().check_action(action, parameters)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter makes the highlighted change."""
        self.action_fix(event.option_index + 1)

    def action_fix(self, number: int) -> None:
        """Make the change, plan, and run again."""
        view = self.view
        if view is None or view.draft is None or self._planning or number > len(self._fixes):
            return
        fix = self._fixes[number - 1]
        if fix.opens == "cache":
            self.wizard.action_cache()
            return
        draft = self._changed(view.draft, fix)
        self._planning = True
        self.refresh_bindings()
        self._doing(f"Planning: {one_line(fix.words)} ...")
        self._plan(draft)

    def _changed(self, draft: Draft, fix: Fix) -> Draft:
        """The draft with the fix; the session gets it too, so that Review shows what is run."""
        session = self.session
        if fix.method:
            session.answer(method=fix.method)
            return session.draft or draft
        for (section, name), value in fix.changes.items():
            draft = draft.with_option(section, name, value)
            session.set_option(section, name, value)
        if fix.changes and session.draft != draft:
            # An option that was unset, or choices that the answers do not make: exactly this is run.
            session.loaded = draft
        return draft

    @work(thread=True, exclusive=True, group="plan", exit_on_error=False)
    def _plan(self, draft: Draft) -> None:
        from quantui.tui.planner import plan_here

        try:
            made = plan_here(draft)
        except QuantuiError as error:
            self.post_message(self.Planned(draft, None, error))
        else:
            self.post_message(self.Planned(draft, made, None))

    def on_failure_screen_planned(self, message: Planned) -> None:
        """Run it, or show what keeps it from being planned, with its own fixes."""
        self._planning = False
        view = self.view
        if message.made is not None:
            plan, facts = message.made
            self.session.plan, self.session.facts = plan, facts
            self.wizard.start_run(plan, facts, message.draft)
            self.wizard.go("run")
        elif view is not None:
            view.draft = message.draft
            self._later = message.error
            self._show()

    def action_copy(self) -> None:
        """Copy a report (OSC 52)."""
        from quantui.tui.failure_report import failure_report

        if self.view is not None:
            report = failure_report(self.error, self.view, self.session.hardware, self._log)
            self.app.copy_to_clipboard(report)
            self.notify("Copied a report: error, versions, machine, commands, end of the log.")

    def action_log(self) -> None:
        """The whole log of the step that failed."""
        from quantui.tui.screens.log import LogScreen

        view = self.view
        if view is not None and view.hosted is not None:
            self.app.push_screen(LogScreen(self._log_path(view.hosted)))

    def _log_path(self, hosted: HostedRun) -> Path:
        """The log that the error names, a proof's or a reference's; else that of the step."""
        assert self.view is not None
        for line in self.error.detail:
            named = hosted.directory / line.removeprefix("log: ").rpartition("/")[2]
            if line.startswith("log: ") and named.suffix == ".log" and named.exists():
                return named
        return hosted.log(self.view.last_step)

    def action_back(self) -> None:
        """To Review, where anything can be changed."""
        self.wizard.go("review")
