"""What the wizard knows: answers, what was looked up for them, and the run. Lives as long as the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.answers import Answers, best_from_here, draft_of, key_of, with_options

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.domain.choosing.recommendation import Choice
    from quantui.domain.draft import Draft
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.plan import Plan
    from quantui.engines.planning import Facts
    from quantui.runtime.engines import EngineStatus
    from quantui.runtime.recommending import Recommended
    from quantui.runtime.subject import Subject
    from quantui.tui.run_view import RunView


class Session:
    """Used on the UI thread only; what a thread worker finds out reaches it by message.

    ``described_by`` is the file of a machine that is not this one. ``loaded`` is a profile that was opened instead
    of answering; ``profile_path`` where choices are saved. ``places`` remembers cursors: screen to whatever it needs.
    """

    def __init__(self, described_by: str | None = None) -> None:
        self.described_by = described_by
        self.answers = Answers()
        self.hardware: HardwareReport | None = None
        self.engines: tuple[EngineStatus, ...] | None = None
        self.subject: Subject | None = None
        self.recommended: Recommended | None = None
        self.loaded: Draft | None = None
        self.profile_path: Path | None = None
        self.plan: Plan | None = None
        self.facts: Facts | None = None
        self.run: RunView | None = None
        self.places: dict[str, Any] = {}

    def answer(self, **changes: Any) -> tuple[str, ...]:  # noqa: ANN401 - any answer
        """Change answers; gives what that cleared, in words. What was computed from the old ones is forgotten."""
        before = self.answers
        self.answers, cleared = before.changed(**changes)
        if self.answers == before:
            return ()
        self.plan = self.facts = None
        self.loaded = None
        here = self.answers
        if (here.model, here.revision, here.adapter, here.adapter_revision) != (
            before.model,
            before.revision,
            before.adapter,
            before.adapter_revision,
        ):
            self.subject = None
        if self.subject is None or here.gpus != before.gpus or here.use_case != before.use_case:
            self.recommended = None
        return cleared

    def set_option(self, section: str, name: str, value: object) -> None:
        """Set one option of the profile by hand; None unsets it. The plan has to be made anew."""
        self.answers = self.answers.with_option(section, name, value)
        self.plan = self.facts = None

    @property
    def choice(self) -> Choice | None:
        """The choice that was picked, else the best that quantui gets to by itself."""
        if self.recommended is None:
            return None
        found = self.recommended.recommendation
        picked = self.answers.method
        for one in found.choices:
            if picked is not None and key_of(one) == picked:
                return one
        return best_from_here(found) if picked is None else None

    @property
    def draft(self) -> Draft | None:
        """What would be run: the opened profile, or what follows from the answers; None: not enough is known."""
        if self.loaded is not None:
            return with_options(self.loaded, self.answers.options)
        choice = self.choice
        if choice is None or self.recommended is None or self.hardware is None:
            return None
        every = tuple(gpu.index for gpu in self.hardware.gpus)
        return draft_of(self.answers, choice, self.recommended.recommendation.context, every)

    @property
    def simulated(self) -> bool:
        """Whether the machine is a described one: nothing can be run on it from here."""
        return self.described_by is not None or bool(self.hardware and self.hardware.simulated)

    def chosen(self, step: str) -> str:
        """One line of what was chosen in a step, for the rail; "" where nothing is yet."""
        return _CHOSEN[step](self) if step in _CHOSEN else ""


def _hardware(session: Session) -> str:
    report, gpus = session.hardware, session.answers.gpus
    if report is None:
        return ""
    if not report.gpus or gpus == ():
        return "CPU"
    used = [gpu for gpu in report.gpus if gpus is None or gpu.index in gpus]
    names = {gpu.name or "GPU" for gpu in used}
    return f"{len(used)} x {names.pop()}" if len(names) == 1 else f"{len(used)} GPUs"


def _use_case(session: Session) -> str:
    from quantui.domain.choosing.use_cases import use_case

    answers = session.answers
    chosen = use_case(answers.use_case)
    context, users = answers.context or chosen.context, answers.users or chosen.users
    return f"{chosen.title}, {context} tokens, {users} user{'s' if users > 1 else ''}"


def _model(session: Session) -> str:
    draft = session.loaded
    model = draft.model.id if draft else session.answers.model
    adapter = draft.adapter.id if draft else session.answers.adapter
    if not model and not adapter:
        return ""
    words = [(name or "").rstrip("/").split("/")[-1] for name in (model, adapter) if name]
    return " + ".join(words)


def _method(session: Session) -> str:
    if session.loaded is not None:
        return session.loaded.quantization.method
    choice = session.choice
    return "" if choice is None else choice.title


def _review(session: Session) -> str:
    return "" if session.profile_path is None else session.profile_path.name


def _run(session: Session) -> str:
    view = session.run
    if view is None:
        return ""
    if not view.living:
        return {"ok": "ended", "failed": "failed", "cancelled": "cancelled"}[view.outcome]
    step = view.state.current
    return "serving" if view.serving else step.id if step else "starting"


def _ready(session: Session) -> str:
    ready = session.run.state.ready if session.run else None
    return "" if ready is None or session.run is None or not session.run.living else ready.url


_CHOSEN = {
    "hardware": _hardware,
    "use_case": _use_case,
    "model": _model,
    "method": _method,
    "review": _review,
    "run": _run,
    "ready": _ready,
}
