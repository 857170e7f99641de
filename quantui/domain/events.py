"""What happens in a run, as values. The recorder writes them, the faces show them, `reduce` folds them.

Every event carries ``at``, seconds since the epoch, given by whoever makes it: this module has no clock.
``to_dict`` and ``from_dict`` are exact inverses, and the dict form is what ``--json`` prints and
``events.jsonl`` holds: ``{"type": "step.progress", "at": ..., ...}``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """The base of all events."""

    type: ClassVar[str]
    at: float


@dataclass(frozen=True, kw_only=True)
class RunStarted(RunEvent):
    """A run begins; ``steps`` are (id, title) in order.

    ``plan`` says what it is to do, as :func:`quantui.domain.plan_summary.plan_summary` does; None where no plan is run.
    """

    type: ClassVar[str] = "run.started"
    run_id: str
    steps: tuple[tuple[str, str], ...]
    directory: str
    quantui_version: str
    plan: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class StepStarted(RunEvent):
    """A step begins; ``detail`` says on what (a device, an interpreter)."""

    type: ClassVar[str] = "step.started"
    step: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StepProgress(RunEvent):
    """``done`` of ``total`` (None: unknown) in ``unit``."""

    type: ClassVar[str] = "step.progress"
    step: str
    done: float
    total: float | None
    unit: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class StepPhase(RunEvent):
    """A named stage inside a step: a worker's, or one of vLLM's as its log tells it."""

    type: ClassVar[str] = "step.phase"
    step: str
    phase: str


@dataclass(frozen=True, kw_only=True)
class StepReused(RunEvent):
    """The step's artifact exists already; nothing is done."""

    type: ClassVar[str] = "step.reused"
    step: str
    artifact: str


@dataclass(frozen=True, kw_only=True)
class StepFinished(RunEvent):
    """The step is done; ``result`` is what it made or found out."""

    type: ClassVar[str] = "step.finished"
    step: str
    seconds: float
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StepFailed(RunEvent):
    """The step failed; ``error`` is a QuantuiError's dict. ``final``: no other way is tried."""

    type: ClassVar[str] = "step.failed"
    step: str
    error: dict[str, Any]
    final: bool


@dataclass(frozen=True, kw_only=True)
class Notice(RunEvent):
    """Something a person should know; ``level`` is ``info`` or ``warning``."""

    type: ClassVar[str] = "notice"
    level: str
    text: str
    step: str | None = None


@dataclass(frozen=True, kw_only=True)
class LogLine(RunEvent):
    """A line of a child's output, as it came (untrusted text)."""

    type: ClassVar[str] = "log"
    step: str
    text: str


@dataclass(frozen=True, kw_only=True)
class MemorySample(RunEvent):
    """Memory in use. ``tree_bytes``: RAM of the run's processes; ``gpus``: (index, used, total) bytes."""

    type: ClassVar[str] = "memory"
    tree_bytes: int | None
    ram_available_bytes: int | None
    gpus: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measured(RunEvent):
    """One figure that this run found out, with its unit, its source and what had been predicted.

    ``base``: the same of the 16-bit model, where this is of one that was made from it.
    """

    type: ClassVar[str] = "measured"
    name: str
    value: float
    unit: str
    source: str
    predicted: float | None = None
    base: float | None = None


@dataclass(frozen=True, kw_only=True)
class ServerReady(RunEvent):
    """The endpoint answers ``/health``."""

    type: ClassVar[str] = "server.ready"
    url: str
    model: str
    pid: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Answered(RunEvent):
    """The served model answered a prompt. ``seconds`` from request to last token."""

    type: ClassVar[str] = "server.answered"
    prompt: str
    text: str
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunFinished(RunEvent):
    """The end. ``outcome``: ``ok``, ``failed``, ``cancelled``; ``leftover``: processes that had to be killed."""

    type: ClassVar[str] = "run.finished"
    outcome: str
    exit_code: int
    seconds: float
    error: dict[str, Any] | None = None


EVENT_TYPES: dict[str, type[RunEvent]] = {
    cls.type: cls
    for cls in (
        RunStarted,
        StepStarted,
        StepProgress,
        StepPhase,
        StepReused,
        StepFinished,
        StepFailed,
        Notice,
        LogLine,
        MemorySample,
        Measured,
        ServerReady,
        Answered,
        RunFinished,
    )
}

_ARRAYS = {
    cls: {field.name: str(field.type).startswith("tuple") for field in dataclasses.fields(cls)}
    for cls in EVENT_TYPES.values()
}
"""Whether a field of an event is a tuple, which JSON makes an array of."""


def to_dict(event: RunEvent) -> dict[str, Any]:
    """The JSON form, ``type`` and ``at`` first."""
    body = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    at = body.pop("at")
    return {"type": event.type, "at": at, **body}


def from_dict(data: dict[str, Any]) -> RunEvent:
    """The event that :func:`to_dict` wrote, also after a trip through JSON.

    Raises ValueError for an unknown type or a missing field; unknown fields (a later version's) are dropped.
    """
    cls = EVENT_TYPES.get(str(data.get("type")))
    if cls is None:
        raise ValueError(f"unknown event type {data.get('type')!r}")
    fields = _ARRAYS[cls]
    kwargs: dict[str, Any] = {
        key: _frozen(value) if fields[key] else value
        for key, value in data.items()
        if key in fields
    }
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise ValueError(f"{cls.type}: {error}") from None


def _frozen(value: object) -> object:
    """JSON arrays back to the tuples that the frozen events hold."""
    if isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return value
