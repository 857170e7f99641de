"""Events folded into the state of a run: the one place where that happens. Faces show the state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

from quantui.domain.events import (
    Answered,
    Measured,
    MemorySample,
    Notice,
    RunEvent,
    RunFinished,
    RunStarted,
    ServerReady,
    StepFailed,
    StepFinished,
    StepPhase,
    StepProgress,
    StepReused,
    StepStarted,
)


@dataclass(frozen=True)
class StepState:
    """One step. ``status``: waiting, running, reused, done, failed. Times are seconds since the epoch."""

    id: str
    title: str
    status: str = "waiting"
    detail: str = ""
    phase: str = ""
    phase_since: float | None = None
    started: float | None = None
    seconds: float | None = None
    done: float | None = None
    total: float | None = None
    unit: str = ""
    message: str = ""
    progress_since: float | None = None
    progress_from: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None

    def rate(self, now: float) -> float | None:
        """``unit`` a second, the mean since progress of this kind began; None while it is a guess."""
        if not self.total or self.done is None or self.progress_since is None:
            return None
        spent, made = now - self.progress_since, self.done - self.progress_from
        if spent < 2.0 or made <= 0 or self.done < 0.02 * self.total:
            return None
        return made / spent

    def eta_s(self, now: float) -> float | None:
        """Seconds left at :meth:`rate`; None while it is a guess."""
        rate = self.rate(now)
        if not rate or self.total is None or self.done is None:
            return None
        return max(0.0, self.total - self.done) / rate


@dataclass(frozen=True)
class RunState:
    """All that is known of a run at a moment."""

    run_id: str = ""
    directory: str = ""
    started: float | None = None
    plan: dict[str, Any] | None = None
    steps: tuple[StepState, ...] = ()
    notices: tuple[Notice, ...] = ()
    memory: MemorySample | None = None
    peak_tree_bytes: int = 0
    peak_gpu_bytes: tuple[tuple[int, int], ...] = ()
    ready: ServerReady | None = None
    answer: Answered | None = None
    measured: tuple[Measured, ...] = ()
    finished: RunFinished | None = None

    def step(self, step_id: str) -> StepState | None:
        """The step with an id."""
        return next((step for step in self.steps if step.id == step_id), None)

    @property
    def current(self) -> StepState | None:
        """The step that is running."""
        return next((step for step in self.steps if step.status == "running"), None)


@singledispatch
def reduce(event: RunEvent, state: RunState) -> RunState:
    """The state after ``event``. Events that change nothing shown (log lines) leave it as it is."""
    del event
    return state


def _change(state: RunState, step_id: str, **changes: Any) -> RunState:  # noqa: ANN401 - of any field
    steps = tuple(replace(step, **changes) if step.id == step_id else step for step in state.steps)
    return replace(state, steps=steps)


@reduce.register
def _(event: RunStarted, state: RunState) -> RunState:
    steps = tuple(StepState(step_id, title) for step_id, title in event.steps)
    return replace(
        state,
        run_id=event.run_id,
        directory=event.directory,
        started=event.at,
        plan=event.plan,
        steps=steps,
    )


@reduce.register
def _(event: StepStarted, state: RunState) -> RunState:
    return _change(
        state,
        event.step,
        status="running",
        started=event.at,
        detail=event.detail,
        phase="",
        phase_since=None,
        message="",
        done=None,
        total=None,
        error=None,
    )


@reduce.register
def _(event: StepPhase, state: RunState) -> RunState:
    return _change(
        state,
        event.step,
        phase=event.phase,
        phase_since=event.at,
        done=None,
        total=None,
        message="",
    )


@reduce.register
def _(event: StepProgress, state: RunState) -> RunState:
    step = state.step(event.step)
    # Another unit, or a count that begins anew, is other work with a rate of its own.
    before = None if step is None or step.unit != event.unit else step.done
    same = before is not None and before <= event.done
    if before is not None and event.unit == "layers" and before < 1 <= event.done:
        # What stands before the first layer takes a moment and counts as one: no rate comes of it.
        same = False
    begun = {} if same else {"progress_since": event.at, "progress_from": event.done}
    return _change(
        state,
        event.step,
        done=event.done,
        total=event.total,
        unit=event.unit,
        message=event.message,
        **begun,
    )


@reduce.register
def _(event: StepReused, state: RunState) -> RunState:
    return _change(state, event.step, status="reused", detail=event.artifact)


@reduce.register
def _(event: StepFinished, state: RunState) -> RunState:
    step = state.step(event.step)
    status = "reused" if step is not None and step.status == "reused" else "done"
    return _change(
        state, event.step, status=status, seconds=event.seconds, result=event.result, error=None
    )


@reduce.register
def _(event: StepFailed, state: RunState) -> RunState:
    status = "failed" if event.final else "running"
    return _change(state, event.step, status=status, error=event.error)


@reduce.register
def _(event: Notice, state: RunState) -> RunState:
    return replace(state, notices=(*state.notices, event))


@reduce.register
def _(event: MemorySample, state: RunState) -> RunState:
    peaks = dict(state.peak_gpu_bytes)
    for index, used, _ in event.gpus:
        peaks[index] = max(used, peaks.get(index, 0))
    return replace(
        state,
        memory=event,
        peak_tree_bytes=max(state.peak_tree_bytes, event.tree_bytes or 0),
        peak_gpu_bytes=tuple(sorted(peaks.items())),
    )


@reduce.register
def _(event: ServerReady, state: RunState) -> RunState:
    return replace(state, ready=event)


@reduce.register
def _(event: Answered, state: RunState) -> RunState:
    return replace(state, answer=event)


@reduce.register
def _(event: Measured, state: RunState) -> RunState:
    return replace(state, measured=(*state.measured, event))


@reduce.register
def _(event: RunFinished, state: RunState) -> RunState:
    return replace(state, finished=event)
