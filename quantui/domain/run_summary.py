"""A run in a few figures: what a list of runs shows, and what two of them are compared by.

A record may be damaged or somebody else's: a figure that is no number is unknown, a text that is none is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantui.domain.run_state import RunState

_MOST_TEXTS = 50
_LONGEST_TEXT = 2000


@dataclass(frozen=True)
class StepSummary:
    """One step: ``status`` as in :class:`~quantui.domain.run_state.StepState`, seconds where it ended."""

    id: str
    title: str
    status: str
    seconds: float | None


@dataclass(frozen=True)
class Figure:
    """One measured figure, its source, and what was predicted or what the 16-bit model has."""

    name: str
    value: float
    unit: str
    source: str
    predicted: float | None
    base: float | None


@dataclass(frozen=True)
class RunSummary:
    """``outcome``: ``ok``, ``failed``, ``cancelled``, ``under way``, or ``cut off`` when nothing tells the end.

    Bytes, seconds, tokens, seconds since the epoch. ``measured_bytes`` is RAM of vLLM on a CPU, else the highest
    use of one GPU; ``memory_source`` says which. ``revision``: the commit of a model of the Hub. ``made``: folders
    of checkpoints that the run made or found made before.
    """

    run_id: str
    directory: str
    outcome: str
    started: float | None = None
    seconds: float | None = None
    model: str = ""
    adapters: tuple[str, ...] = ()
    method: str = ""
    engine: str = ""
    context: int | None = None
    predicted_bytes: float | None = None
    measured_bytes: float | None = None
    memory_source: str = ""
    load_seconds: float | None = None
    steps: tuple[StepSummary, ...] = ()
    figures: tuple[Figure, ...] = ()
    notices: tuple[str, ...] = ()
    what: str = ""
    why: str = ""
    fix: str = ""
    revision: str = ""
    made: tuple[str, ...] = ()

    def figure(self, name: str) -> Figure | None:
        """The last figure of a name."""
        return next((one for one in reversed(self.figures) if one.name == name), None)

    @property
    def tokens_per_s(self) -> float | None:
        """How fast one stream was answered."""
        found = self.figure("decoding")
        return found.value if found else None

    @property
    def quality_loss(self) -> float | None:
        """How much perplexity grew over the 16-bit model's, as a fraction; None where it was not compared."""
        for one in reversed(self.figures):
            if one.name == "perplexity" and one.base:
                return one.value / one.base - 1
        return None

    @property
    def title(self) -> str:
        """Model and adapters by their last names: ``llama-8b + my-lora``; else what the first step does."""
        names = (name.rstrip("/").split("/")[-1] for name in (self.model, *self.adapters))
        first = self.steps[0].title if self.steps else "unknown"
        return " + ".join(filter(None, names)) or first


def summarize(run_id: str, directory: str, state: RunState) -> RunSummary:
    """The summary of a run's state; one that has not ended counts as cut off here."""
    plan: dict[str, Any] = state.plan if isinstance(state.plan, dict) else {}
    figures = tuple(_figures(state))
    finished = state.finished
    error = finished.error if finished and isinstance(finished.error, dict) else {}
    ram = next((one for one in figures if one.name == "RAM of vLLM"), None)
    cards = [used for _, used in state.peak_gpu_bytes if isinstance(used, int)]
    highest = max(cards, default=0) if state.ready is not None else 0
    predicted = number(plan.get("predicted_bytes"))
    return RunSummary(
        run_id=run_id,
        directory=directory,
        outcome=_text(finished.outcome) if finished else "cut off",
        started=number(state.started),
        seconds=number(finished.seconds) if finished else None,
        model=_text(plan.get("model")) or (_text(state.ready.model) if state.ready else ""),
        adapters=tuple(_text(name) for name in _list(plan.get("adapters"))),
        method=_text(plan.get("method")) or _method(state),
        engine=" ".join(filter(None, (_text(plan.get("engine")), _text(plan.get("vllm"))))),
        context=_count(plan.get("context")),
        predicted_bytes=ram.predicted if ram else predicted,
        measured_bytes=ram.value if ram else float(highest) or None,
        memory_source=ram.source
        if ram
        else "highest use of one GPU, other programs' included, NVML"
        if highest
        else "",
        load_seconds=number(state.ready.seconds) if state.ready else None,
        steps=tuple(
            StepSummary(_text(step.id), _text(step.title), step.status, number(step.seconds))
            for step in state.steps
        ),
        figures=figures,
        notices=tuple(_text(notice.text) for notice in state.notices[:_MOST_TEXTS]),
        what=_text(error.get("what")),
        why=_text(error.get("why")),
        fix=_text(error.get("fix")),
        revision=_text(plan.get("revision")),
        made=tuple(dict.fromkeys(path for step in state.steps if (path := _made(step.result)))),
    )


def _figures(state: RunState) -> list[Figure]:
    found = []
    for one in state.measured:
        value = number(one.value)
        if value is not None:
            predicted, base = number(one.predicted), number(one.base)
            found.append(
                Figure(_text(one.name), value, _text(one.unit), _text(one.source), predicted, base)
            )
    return found


def _made(result: object) -> str:
    """The folder that a step made, or found made before."""
    return _text(result.get("path")) if isinstance(result, dict) else ""


def _method(state: RunState) -> str:
    """Of a run whose record has no plan: what its steps tell."""
    for step in state.steps:
        recipe = step.result.get("recipe") if isinstance(step.result, dict) else None
        if isinstance(recipe, dict):
            return _text(recipe.get("method"))
    serve = state.step("serve")
    return _text(serve.title).removeprefix("serve with vLLM").strip(", ") if serve else ""


def number(value: object) -> float | None:
    """``value`` as a finite number; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _text(value: object) -> str:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value[:_MOST_TEXTS] if isinstance(value, list) else []
