"""Every picture of the wizard: what it shows, and how to get there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import shelf
import world
from wizard import NARROW, RECORDED, Picture, PicturedWizard, run_until

from quantui.domain.diagnose import diagnose
from quantui.domain.events import RunFinished, RunStarted, StepFailed, StepFinished, StepStarted
from quantui.runtime import living_runs
from quantui.runtime.recorder import OWNER
from quantui.runtime.run_record import EVENTS
from quantui.tui.run_view import RunView

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = "two-cores.json"
MODEL = {"model": shelf.BASE}
TUNED = {**MODEL, "adapter": "support-lora"}
DEMO = {"model": "models/demo/base", "adapter": "models/demo/adapter"}


def with_models(wizard: object) -> None:
    """The model and the adapter that the pictures are about."""
    del wizard
    shelf.stock()


def recorded_run(seconds: float | None) -> Callable[[PicturedWizard], None]:
    """The recorded run as it was after so many seconds."""

    def prepare(wizard: PicturedWizard) -> None:
        hardware = wizard.session.hardware
        total = hardware.host.ram_total_bytes if hardware else None
        wizard.session.run = run_until("served.jsonl", seconds=seconds, ram_total=total)

    return prepare


def out_of_memory(wizard: PicturedWizard) -> None:
    """What Review planned was run, and the first forward pass did not fit."""
    session = wizard.session
    plan = session.plan
    assert plan is not None
    view = RunView(plan, session.facts, session.draft)
    log = (RECORDED / "out_of_memory.log").read_text(encoding="utf-8").splitlines()
    error = diagnose(log, exit_code=1, log="/tmp/you/quantui/runs/20261122-011040-51c07e/serve.log")
    at, place = world.NOW - 60, str(world.HOME / "quantui/runs/20261122-011040-51c07e")
    steps = tuple((step.id, step.title) for step in plan.steps)
    before = [step for step in plan.steps if step.kind in ("install", "download")]
    for event in (
        RunStarted(
            at=at, run_id="20261122-011040-51c07e", steps=steps, directory=place, quantui_version=""
        ),
        *(StepFinished(at=at, step=step.id, seconds=212.0, result={}) for step in before),
        StepStarted(at=at, step="serve"),
        StepFailed(at=at + 44, step="serve", error=error.to_dict(), final=True),
        RunFinished(at=at + 44, outcome="failed", exit_code=3, seconds=44.0, error=error.to_dict()),
    ):
        view.heard(event)
    view.followed = True
    session.run = view
    wizard.go("failure")


def with_history(wizard: object) -> None:
    """The record of the run, and of others."""
    del wizard
    for record in sorted((RECORDED / "runs").glob("*.jsonl")):
        folder = world.HOME / "quantui" / "runs" / record.stem
        folder.mkdir(parents=True)
        shutil.copy(record, folder / "events.jsonl")
        shelf.aged(folder, 1)


def with_a_living_run(wizard: object) -> None:
    """The recorded run as it serves; its process is not there, so that it is said to be."""
    del wizard
    folder = world.HOME / "quantui" / "runs" / "20261122-001641-7934a3"
    folder.mkdir(parents=True)
    lines = (RECORDED / "served.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    checked = next(at for at, line in enumerate(lines) if '"step": "check", "seconds"' in line)
    (folder / EVENTS).write_text("".join(lines[: checked + 1]), encoding="utf-8")
    (folder / OWNER).write_text(_OWNER, encoding="utf-8")
    living_runs.read_owner = lambda _: _OWNER  # type: ignore[assignment]


def with_everything(wizard: object) -> None:
    """A disk that was worked with for some time."""
    shelf.stock(engines=True, artifacts=True)
    with_history(wizard)


_OWNER = "28121 4711"
_METHODS = "~tokens for each of"
_AWQ = (_METHODS, "7", "enter", "~max_model_len")
_PLANNED = (_METHODS, "enter", "~max_model_len")
_LOOKED = "Cache  57.05 GiB in 13 things"
_TWO_SELECTED = (
    *(f"~{_LOOKED}", "down", "space", "down", "down", "down", "right"),
    *("~0b1a7d2c", "down", "down", "space", "~2 selected"),
)
_SERVED = {"machine": CPU, "answers": DEMO}

PICTURES = (
    Picture("hardware", "hardware", ("RTX 4090", "used by")),
    Picture("hardware-80x24", "hardware", ("RTX 4090", "used by"), NARROW),
    Picture("use-case", "use_case", ("balanced", "recommended")),
    Picture("model", "model", ("Qwen2.5-7B", "commit"), prepare=with_models),
    Picture("method", "method", ("FP8", "why"), answers=MODEL, prepare=with_models),
    Picture("method-80x24", "method", ("FP8", "why"), NARROW, answers=MODEL, prepare=with_models),
    Picture(
        "why", "method", ("KV cache",), keys=(_METHODS, "w"), answers=MODEL, prepare=with_models
    ),
    Picture("review", "method", ("commands",), keys=_AWQ, answers=TUNED, prepare=with_models),
    Picture(
        "options",
        "method",
        ("options of the profile", "default"),
        keys=(*_AWQ, "o"),
        answers=TUNED,
        prepare=with_models,
    ),
    Picture("run", "run", ("calibrate",), prepare=recorded_run(52), **_SERVED),
    Picture("run-80x24", "run", ("calibrate",), NARROW, prepare=recorded_run(52), **_SERVED),
    Picture(
        "failure",
        "method",
        ("What can be done",),
        keys=_PLANNED,
        answers=MODEL,
        prepare=with_models,
        then=out_of_memory,
    ),
    Picture("ready", "ready", ("my-model", "curl"), prepare=recorded_run(329.15), **_SERVED),
    Picture(
        "cache",
        "use_case",
        ("2 selected", "GiB in all"),
        keys=("c", *_TWO_SELECTED),
        prepare=with_everything,
    ),
    Picture(
        "cache-80x24",
        "use_case",
        (_LOOKED, "Qwen"),
        NARROW,
        keys=("c",),
        prepare=with_everything,
    ),
    Picture(
        "cache-plan",
        "use_case",
        ("to the trash", "Frees"),
        keys=("c", *_TWO_SELECTED, "d"),
        prepare=with_everything,
    ),
    Picture(
        "cache-plan-80x24",
        "use_case",
        ("to the trash", "Frees"),
        NARROW,
        keys=("c", *_TWO_SELECTED, "d"),
        prepare=with_everything,
    ),
    Picture("history", "use_case", ("6 runs,",), keys=("h",), prepare=with_history),
    Picture("history-80x24", "use_case", ("6 runs,",), NARROW, keys=("h",), prepare=with_history),
    Picture(
        "history-details",
        "use_case",
        ("Steps",),
        keys=("h", "~6 runs,", "enter"),
        prepare=with_history,
    ),
    Picture(
        "history-compare",
        "use_case",
        ("change",),
        keys=("h", "~6 runs,", "space", "down", "down", "down", "down", "space", "x"),
        prepare=with_history,
    ),
    Picture(
        "history-plot", "use_case", ("axis",), keys=("h", "~6 runs,", "p"), prepare=with_history
    ),
    Picture("background", "use_case", ("28121",), keys=("b",), prepare=with_a_living_run),
    Picture(
        "help",
        "method",
        ("Keys of this screen",),
        keys=(_METHODS, "question_mark"),
        answers=MODEL,
        prepare=with_models,
    ),
    Picture("palette", "hardware", ("Go to Model",), keys=("ctrl+p",)),
)
