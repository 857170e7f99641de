"""Which measurements speak for a situation, and what they say of it once carried there by the formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from quantui.domain.performance.evidence import published

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.performance.decode_load import Candidate, Load
    from quantui.domain.performance.evidence import Evidence, SpeedPoint, SpeedRatio
    from quantui.domain.performance.gpu_table import GpuModel

_SAME_SIZE = math.log(1.12)
"""A published speed is of a model of the same size when the parameters differ by less than 12 %."""
_NEAR_LOAD = math.log(2.0)
"""It speaks for loads up to twice and half its own; the formula carries it from there to here."""
_NEAR_SIZE = math.log(4.0)
"""A ratio to 16 bit speaks for models up to four times smaller or larger."""


@dataclass(frozen=True, slots=True)
class OwnRun:
    """A load that was measured on the user's machine: ``tokens_per_s`` over all ``users`` together.

    ``model`` and ``hardware`` are fingerprints as the caller compares them; ``context`` 0: not known.
    """

    method: str
    model: str
    hardware: str
    users: int
    tokens_per_s: float
    context: int = 0
    tensor_parallel: int = 1
    when: str = ""

    def __str__(self) -> str:
        when = f" on {self.when}" if self.when else ""
        return f"your own run{when}: {self.tokens_per_s:.1f} tokens/s over {self.users} users"


class Carried(NamedTuple):
    """A measurement carried to the asked load: seconds of a step there, and how far it was carried (0: not)."""

    seconds: float
    distance: float


def own_runs_for(
    runs: Sequence[OwnRun], *, model: str | None, hardware: str | None, tensor_parallel: int
) -> list[OwnRun]:
    """The runs of this model on this hardware; None takes them as already chosen."""
    return [
        run
        for run in runs
        if run.tensor_parallel == tensor_parallel
        and run.tokens_per_s > 0
        and run.users > 0
        and (model is None or run.model == model)
        and (hardware is None or run.hardware == hardware)
    ]


def nearest_run(runs: Sequence[OwnRun], method: str, users: int) -> OwnRun | None:
    """The run of ``method`` whose load is nearest."""
    same = [run for run in runs if run.method == method]
    return min(same, key=lambda run: load_distance(users, run.users), default=None)


def load_distance(users: int, measured: int) -> float:
    """How far two numbers of users are apart: the logarithm of their ratio."""
    return abs(math.log(users / measured))


def carried_run(run: OwnRun, load: Load, of: Candidate, users: int, context: int) -> Carried:
    """What ``run`` says of this load."""
    there = load.seconds(of, run.users, run.context or context)
    seconds = run.users / run.tokens_per_s * load.seconds(of, users, context) / there
    return Carried(seconds, load_distance(users, run.users))


@lru_cache(maxsize=256)
def _published_on(gpu: GpuModel) -> tuple[SpeedPoint, ...]:
    return tuple(point for point in published().speeds if point.on(gpu))


def points_for(load: Load, evidence: Evidence) -> tuple[SpeedPoint, ...]:
    """Published speeds of a model of this size on this card and as many of them."""
    if load.pipeline_parallel > 1 or not load.shape.parameters:
        return ()
    if evidence is published():
        points = _published_on(load.gpu)
    else:
        points = tuple(point for point in evidence.speeds if point.on(load.gpu))
    return tuple(point for point in points if _same_size(point, load))


def _same_size(point: SpeedPoint, load: Load) -> bool:
    shape = load.shape
    if point.tensor_parallel != load.tensor_parallel or not shape.parameters:
        return False
    if abs(math.log(shape.parameters / point.parameters)) > _SAME_SIZE:
        return False
    active = shape.active_parameters if shape.experts else None
    return abs(math.log((active or shape.parameters) / point.active_parameters)) < 2 * _SAME_SIZE


def _figure(figures: Mapping[str, float], of: Candidate) -> str | None:
    """Under which name a measurement holds this method: its own, or that of a kernel that speaks for it."""
    return next((name for name in (of.method, *of.how.figures) if name in figures), None)


def nearest_point(
    points: Sequence[SpeedPoint], of: Candidate, users: int, parameters: float
) -> tuple[SpeedPoint, str] | None:
    """The published speed of this method nearest in load and size, and its key; None when none is near."""
    best, least = None, math.inf
    for point in points:
        distance = load_distance(users, point.users)
        if distance <= _NEAR_LOAD and (key := _figure(point.tokens_per_s, of)):
            distance += 4 * abs(math.log(parameters / point.parameters))
            if distance < least:
                best, least = (point, key), distance
    return best


def carried_point(
    point: SpeedPoint, key: str, load: Load, of: Candidate, users: int, context: int
) -> Carried:
    """What ``point`` says of this load."""
    there = load.seconds(of, point.users, point.context)
    seconds = load.seconds(of, users, context) / there / point.tokens_per_s[key]
    return Carried(seconds, load_distance(users, point.users))


def carried_ratio(
    measured: float, load: Load, of: Candidate, plain: Candidate, users: int, context: int
) -> float:
    """By how much a ratio to 16 bit was above the formula's, where it was measured.

    Long contexts bring every format's speed nearer to that of 16 bit: a ratio is carried there by the formula.
    """
    return measured * load.seconds(of, users, context) / load.seconds(plain, users, context)


def nearest_ratio(
    evidence: Evidence, load: Load, of: Candidate, users: int, context: int
) -> tuple[SpeedRatio, float] | None:
    """A published ratio to 16 bit for such cards, loads and methods, of the model nearest in size.

    All of them are of dense models: a mixture of experts is bound by reading weights at loads where these are not.
    """
    parameters = load.shape.parameters
    if of.method == "none" or not parameters or load.shape.experts:
        return None
    best, least = None, _NEAR_SIZE
    for ratio in evidence.ratios:
        if (
            ratio.capability == load.gpu.compute_capability
            and ratio.users[0] <= users <= ratio.users[1]
            and context <= ratio.most_context
        ):
            key = _figure(ratio.ratios, of)
            distance = abs(math.log(parameters / ratio.parameters))
            if key is not None and distance <= least:
                best, least = (ratio, ratio.ratios[key]), distance
    return best


def calibration(
    runs: Sequence[OwnRun],
    points: Sequence[SpeedPoint],
    load: Load,
    plain: Candidate,
    users: int,
    context: int,
) -> tuple[float, str]:
    """Measured over computed time of a 16-bit step of this model here, and in whose measurement; (1, "") without one.

    What slows 16 bit down on a machine slows the other formats down too: formula and measurements of
    different methods can then be compared.
    """
    run = nearest_run(runs, "none", users)
    if run is None and not points:
        return 1.0, ""
    computed = load.seconds(plain, users, context)
    if run is not None:
        scale = carried_run(run, load, plain, users, context).seconds / computed
        return _bounded(scale), f"time x {_bounded(scale):.2f}, after 16 bit in {run}"
    current = [point for point in points if not point.ratio_only]
    near = nearest_point(current, plain, users, load.shape.parameters or 1)
    if near is None:
        return 1.0, ""
    point, key = near
    scale = carried_point(point, key, load, plain, users, context).seconds / computed
    return _bounded(
        scale
    ), f"time x {_bounded(scale):.2f}, after 16 bit as measured by {point.source}"


def _bounded(scale: float) -> float:
    return min(2.5, max(0.4, scale))
