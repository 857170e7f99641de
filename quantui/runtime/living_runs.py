"""The runs that are under way on this machine, whoever began them: a wizard, or ``quantui --profile``."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.hosted_run import HostedRun, read_owner
from quantui.runtime.paths import runs_dir
from quantui.runtime.recorder import OWNER
from quantui.runtime.run_record import EVENTS, Fold

if TYPE_CHECKING:
    from quantui.domain.run_state import RunState

_folds: dict[Path, Fold] = {}
_folding = threading.Lock()
"""Records are read once and then only where they grew: asking again every second costs nothing."""


@dataclass(frozen=True)
class LivingRun:
    """A run whose process lives. ``started``: seconds since the epoch, None before its first event.

    ``serving``: its server answers and no step is left. ``title`` says in a line what it does.
    """

    run_id: str
    directory: Path
    pid: int
    started: float | None
    state: RunState
    serving: bool
    title: str


def living_runs() -> tuple[LivingRun, ...]:
    """Every run under way, the oldest first; the first call reads their records, later ones what is new in them."""
    found: list[LivingRun] = []
    with _folding:
        living: set[Path] = set()
        for path in sorted(runs_dir().glob(f"*/{OWNER}")):
            directory = path.parent
            owner = read_owner(directory)
            if owner is None:
                continue
            living.add(directory)
            state = _folds.setdefault(directory, Fold(directory / EVENTS)).state()
            if state.finished is None:
                found.append(_living(directory, int(owner.split()[0]), state))
        for directory in set(_folds) - living:
            del _folds[directory]
    return tuple(found)


def attach(run_id: str) -> HostedRun:
    """A run under way, to follow or to stop; raises ``run.not-living``."""
    directory = runs_dir() / Path(run_id).name
    owner = read_owner(directory)
    if owner is None:
        raise QuantuiError(
            "run.not-living",
            f"The run {run_id} is over.",
            f"Its record is in {directory}." if directory.is_dir() else "It has no record here.",
            exit_code=ExitCode.NOT_FOUND,
        )
    return HostedRun(directory.name, directory, owner)


def stop_run(run_id: str, timeout_s: float = 20.0) -> bool:
    """Ask a run to stop and wait until no process of it is left; False when one is after ``timeout_s``.

    True also for a run that is over already.
    """
    try:
        run = attach(run_id)
    except QuantuiError:
        return True
    run.cancel()
    return run.wait(timeout_s)


def _living(directory: Path, pid: int, state: RunState) -> LivingRun:
    serving = state.ready is not None and state.current is None
    return LivingRun(
        run_id=directory.name,
        directory=directory,
        pid=pid,
        started=state.started,
        state=state,
        serving=serving,
        title=_title(state),
    )


def _title(state: RunState) -> str:
    if state.ready is not None:
        return f"{state.ready.model} at {state.ready.url}"
    step = state.current or (state.steps[-1] if state.steps else None)
    return "starting" if step is None else step.title
