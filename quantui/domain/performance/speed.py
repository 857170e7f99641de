"""How fast a method decodes here: by the user's own runs, by what others measured, by formula, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantui.domain.performance.decode_formula import Regime, units
from quantui.domain.performance.decode_load import Candidate, Load, formula_words, sixteen_bit
from quantui.domain.performance.evidence import published
from quantui.domain.performance.speed_evidence import (
    Carried,
    OwnRun,
    calibration,
    carried_point,
    carried_ratio,
    carried_run,
    load_distance,
    nearest_point,
    nearest_ratio,
    nearest_run,
    own_runs_for,
    points_for,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.methods import Method
    from quantui.domain.performance.evidence import Evidence, SpeedPoint
    from quantui.domain.performance.gpu_table import GpuModel

__all__ = ["Basis", "OwnRun", "Regime", "Speed", "decode_speed"]

Basis = Literal["formula", "published", "own run"]
"""What a speed rests on, the least first: each outranks the one before."""

_OWN_SPREAD, _PUBLISHED_SPREAD, _PER_DISTANCE = 0.08, 0.15, 0.1
"""Half the band of a measured speed, and what carrying it to a load e times as large adds: an assumption, after
runs of one configuration that differ by a few percent and engines of different age by 10 to 15."""
_FITTED = (
    "factors fitted to SilyBench's vLLM 0.30 on an H100, held against ML.ENERGY and the Qwen team"
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Decoding speed in tokens a second; None where it is not known.

    ``low`` and ``high`` bound ``tokens_per_s_per_user``. ``regime``: what a step is bound by. ``relative_to_16bit``:
    this speed over that of the 16-bit model on the same devices, whether or not it fits them. ``claims``: what
    others say of this method, with their names; some of it contradicts the hardware, and none of it is computed with.
    """

    tokens_per_s_per_user: float | None
    tokens_per_s_total: float | None
    regime: Regime
    basis: Basis
    relative_to_16bit: float | None
    low: float | None
    high: float | None
    formula: str
    source: str
    claims: tuple[str, ...] = ()


def decode_speed(
    shape: ModelShape,
    weight_bytes: float,
    kv_bytes_per_token: float,
    method: Method,
    gpu: GpuModel | None,
    *,
    users: int,
    context: int,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    evidence: Evidence | None = None,
    own_runs: Sequence[OwnRun] = (),
    model: str | None = None,
    hardware: str | None = None,
) -> Speed:
    """Tokens a second while ``users`` requests of ``context`` tokens are decoded together.

    ``weight_bytes`` and ``kv_bytes_per_token`` are of one rank (the fullest GPU), as the memory model gives them;
    ``gpu`` is the slowest card used, None when it is not known or the CPU serves: then only own runs speak.
    ``own_runs`` count when they are of this ``model`` and ``hardware`` (None: taken as already chosen) and of the same
    tensor parallel size; one in 16 bit calibrates the other methods. ``evidence`` None: what is published.
    """
    known = evidence or published()
    users, context = max(1, users), max(1, context)
    runs = own_runs_for(own_runs, model=model, hardware=hardware, tensor_parallel=tensor_parallel)
    claims = tuple(map(str, known.claims_about(method.name, gpu.name if gpu else "")))
    if gpu is None:
        return _without_card(method.name, runs, users, claims)
    load = Load(shape, kv_bytes_per_token, gpu, tensor_parallel, pipeline_parallel)
    asked = Candidate(method.name, weight_bytes, units(method, gpu, known))
    plain = sixteen_bit(load, asked, method, known)
    points = points_for(load, known)
    done = load.work(weight_bytes, users, context)
    parts = load.step(done, asked.how, users)
    in_16bit = parts.seconds if plain is asked else load.seconds(plain, users, context)
    relative = in_16bit / parts.seconds
    scale, calibrated = calibration(runs, points, load, plain, users, context)
    reference = in_16bit * scale
    basis: Basis = "formula"
    spread: float | None = None
    if (run := nearest_run(runs, method.name, users)) is not None:
        carried = carried_run(run, load, asked, users, context)
        seconds, spread = carried.seconds, _spread(_OWN_SPREAD, carried)
        basis, source = "own run", str(run)
        if calibrated:
            relative = reference / seconds
    elif (near := _published_speed(points, asked, users, shape.parameters or 1)) is not None:
        point, key = near
        carried = carried_point(point, key, load, asked, users, context)
        seconds, spread = carried.seconds, _spread(_PUBLISHED_SPREAD, carried)
        basis, source = "published", f"{point.source}: {point.model} on {point.card}, {key}"
        if "none" in point.tokens_per_s:
            ratio = point.tokens_per_s[key] / point.tokens_per_s["none"]
            relative *= carried_ratio(ratio, load, asked, plain, point.users, point.context)
            seconds = reference / relative
        if point.ratio_only:
            spread = None
    elif (found := nearest_ratio(known, load, asked, users, context)) is not None:
        measured, ratio = found
        one_card, whole, whole_16bit = load.on_one_card(asked, plain)
        relative *= carried_ratio(ratio, one_card, whole, whole_16bit, users, measured.context)
        seconds = reference / relative
        basis, source = "published", f"{ratio:.2f} of the 16-bit speed: {measured.source}"
    else:
        seconds = parts.seconds * scale
        source = f"{gpu.name}: {gpu.source}; {_FITTED}; {asked.how.kernel.source}"
    if calibrated and basis != "own run":
        source += f"; {calibrated}"
    each = 1 / seconds
    slow, fast = (load.step(done, asked.how, users, end).seconds for end in (0, 2))
    low, high = (
        (parts.seconds / slow, parts.seconds / fast) if spread is None else (1 - spread, 1 + spread)
    )
    return Speed(
        tokens_per_s_per_user=each,
        tokens_per_s_total=each * users,
        regime=parts.regime,
        basis=basis,
        relative_to_16bit=1.0 if plain is asked else relative,
        low=each * low,
        high=each * high,
        formula=formula_words(load, done, asked.how, parts, users),
        source=source,
        claims=claims,
    )


def _published_speed(
    points: Sequence[SpeedPoint], asked: Candidate, users: int, parameters: float
) -> tuple[SpeedPoint, str] | None:
    """The speed that is used as it stands, or for its ratio to 16 bit, which 16 bit itself has no use for."""
    usable = [point for point in points if not point.ratio_only or asked.method != "none"]
    return nearest_point(usable, asked, users, parameters)


def _spread(least: float, carried: Carried) -> float:
    return min(0.6, least + _PER_DISTANCE * carried.distance)


def _without_card(
    method: str, runs: Sequence[OwnRun], users: int, claims: tuple[str, ...]
) -> Speed:
    """A run at the same load, or nothing: there is no formula to carry it to another."""
    run = nearest_run(runs, method, users)
    if run is None or load_distance(users, run.users) > load_distance(5, 4):
        why = "no formula: the card is not known, or the CPU serves"
        return Speed(None, None, "unknown", "formula", None, None, None, why, "", claims)
    each = run.tokens_per_s / run.users
    plain = nearest_run(runs, "none", users)
    return Speed(
        tokens_per_s_per_user=each,
        tokens_per_s_total=each * users,
        regime="unknown",
        basis="own run",
        relative_to_16bit=(
            run.tokens_per_s / plain.tokens_per_s
            if plain is not None and plain.users == run.users
            else None
        ),
        low=each * (1 - _OWN_SPREAD),
        high=each * (1 + _OWN_SPREAD),
        formula=f"{run.tokens_per_s:.1f} tokens/s / {run.users} users",
        source=str(run),
        claims=claims,
    )
