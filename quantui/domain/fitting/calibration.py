"""What earlier loads on this machine teach the next estimate: residuals, and how fast they answered. Pure.

The *rest* of a load is all that is neither weights nor KV cache: the context, workspaces, the transient peak,
CUDA graphs; on the CPU vLLM's own processes. Its residual is measured minus predicted. On a GPU vLLM gives what is
left of its budget to the KV cache, so the rest is budget - weights - KV cache, each by vLLM's own log; where the cache
was given a size, and on the CPU, it is what the processes held at their peak minus weights and cache.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Literal

from quantui.domain.formatting import format_bytes
from quantui.domain.performance.speed_evidence import OwnRun
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quantui.domain.hardware import Gpu, HardwareReport

LAST_RUNS = 7
"""Residuals of this many runs make the median: enough to outvote odd ones, few enough to follow a change."""
MOST_OF_A_CARD = 0.25
"""A correction beyond this part of the device says that something else went wrong in that run: it is cut."""

Outcome = Literal["ok", "out-of-memory"]


@dataclass(frozen=True)
class Calibration:
    """A correction to be added to what an estimate says is needed, bytes on one GPU (or of RAM).

    ``runs`` is how many loads it is the median of, ``spread_bytes`` how far apart they were.
    """

    residual_bytes: int
    runs: int
    source: str
    spread_bytes: int = 0


@dataclass(frozen=True)
class Load:
    """What identifies a load: ``machine`` by :func:`machine_key`, ``model`` by its fingerprint."""

    machine: str
    engine: str
    vllm_version: str
    method: str
    model: str
    tensor_parallel: int = 1
    pipeline_parallel: int = 1


@dataclass(frozen=True)
class Figures:
    """Bytes on one GPU (or of RAM) and tokens, predicted or measured; None where nothing tells.

    A prediction's are those of the formulas, without the correction that the estimate was given. ``peak`` is
    what was in use once it served, other processes left out.
    """

    weights: int | None = None
    kv_cache: int | None = None
    rest: int | None = None
    kv_tokens: int | None = None
    peak: int | None = None
    graphs: int | None = None


@dataclass(frozen=True)
class Expectation:
    """What a plan expects of its load.

    ``kv_cache_given``: the cache has a size of its own. ``device_bytes`` is the whole of one GPU, or the RAM;
    ``gpus`` are the indices of those that will be used.
    """

    load: Load
    predicted: Figures
    on_cpu: bool
    kv_cache_given: bool
    device_bytes: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    model_ref: str = ""
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Observation:
    """One load: what had been expected, what was measured, and how fast the check was answered.

    ``at`` in seconds since the epoch; ``tokens_per_s`` is one user's while decoding.
    """

    at: float
    expected: Expectation
    outcome: Outcome
    measured: Figures
    load_seconds: float | None = None
    tokens_per_s: float | None = None
    first_token_s: float | None = None
    answer_tokens: int | None = None

    @property
    def load(self) -> Load:
        """What was loaded, where."""
        return self.expected.load

    @property
    def predicted(self) -> Figures:
        """What the estimate had said."""
        return self.expected.predicted


def machine_key(report: HardwareReport, gpus: Sequence[Gpu] = ()) -> str:
    """What a residual of one rank holds for: the kinds of GPU used and their driver; without any, CPU and RAM."""
    if gpus:
        kinds = {
            (gpu.name, gpu.total_bytes, gpu.compute_capability): replace(gpu, index=0)
            for gpu in gpus
        }
        return replace(report, gpus=tuple(kinds.values())).fingerprint()
    host = report.host
    ram = "?" if host.ram_total_bytes is None else f"{host.ram_total_bytes / GIB:.0f} GiB"
    return f"CPU {host.cpu_name or '?'}, {host.usable_cores or '?'} cores, {ram}"


def rest_residual(seen: Observation) -> int | None:
    """Measured minus predicted rest, bytes; None when a figure that is needed was not logged.

    A load that ran out of memory needed at least what would have left the KV cache nothing.
    """
    was, now = seen.predicted, seen.measured
    if was.rest is None or was.weights is None or was.kv_cache is None:
        return None
    weights = was.weights if now.weights is None else now.weights
    expected = seen.expected
    if seen.outcome != "ok" and now.kv_cache is None and not expected.on_cpu:
        return max(0, was.kv_cache)
    if expected.kv_cache_given or expected.on_cpu:
        if now.peak is None or seen.outcome != "ok":
            return None
        cache = was.kv_cache if now.kv_cache is None else now.kv_cache
        return now.peak - weights - cache - was.rest
    if now.kv_cache is None:
        return None
    budget = was.weights + was.kv_cache + was.rest
    return budget - weights - now.kv_cache - was.rest


def weight_residual(seen: Observation) -> int | None:
    """Measured minus predicted weights, bytes; None when vLLM did not tell."""
    was, now = seen.predicted.weights, seen.measured.weights
    return None if was is None or now is None else now - was


def calibration_for(load: Load, observations: Iterable[Observation]) -> Calibration | None:
    """The correction for a load of this machine, engine and vLLM version; None before any taught one.

    Earlier loads of the same model in the same way come first, with what its weights took beyond the
    prediction: only where there are none do others count. A correction is the median of the last
    :data:`LAST_RUNS`. What says that less is needed counts for n / (n + 1) of itself in n runs, and so does
    what other models say: one odd run cannot hide that something does not fit.
    """
    here = [seen for seen in observations if _same_place(seen.load, load)]
    taught = _last_residuals([seen for seen in here if _same_way(seen.load, load)], own=True)
    foreign = not taught
    taught = taught or _last_residuals(here, own=False)
    if not taught:
        return None
    middle = float(median(residual for residual, _ in taught))
    runs = len(taught)
    if foreign or middle < 0:
        middle *= runs / (runs + 1)
    last = taught[-1][1]
    if last.expected.device_bytes:
        most = MOST_OF_A_CARD * last.expected.device_bytes
        middle = max(-most, min(most, middle))
    if last.predicted.rest is not None:
        # The rest cannot be nothing: at least half of what the formula says is kept.
        middle = max(middle, -last.predicted.rest / 2)
    residuals = [residual for residual, _ in taught]
    return Calibration(
        residual_bytes=round(middle),
        runs=runs,
        source=_source(load, middle, runs, foreign=foreign),
        spread_bytes=max(residuals) - min(residuals),
    )


def own_runs(load: Load, observations: Iterable[Observation]) -> tuple[OwnRun, ...]:
    """How fast the model of ``load`` answered on its machine, newest first: every method, every spread."""
    found = sorted(observations, key=lambda seen: seen.at, reverse=True)
    return tuple(
        OwnRun(
            method=seen.load.method,
            model=seen.load.model,
            hardware=seen.load.machine,
            users=1,
            tokens_per_s=seen.tokens_per_s,
            context=seen.answer_tokens or 0,
            tensor_parallel=seen.load.tensor_parallel,
            when=datetime.fromtimestamp(seen.at, UTC).date().isoformat(),
        )
        for seen in found
        if seen.tokens_per_s and seen.load.pipeline_parallel == load.pipeline_parallel
        if seen.load.model == load.model and _same_place(seen.load, load)
    )


def _same_place(one: Load, other: Load) -> bool:
    return (one.machine, one.engine, _minor(one.vllm_version)) == (
        other.machine,
        other.engine,
        _minor(other.vllm_version),
    )


def _minor(version: str) -> str:
    """``0.32`` of ``0.32.1+cpu``: what vLLM takes changes with its minor version."""
    return ".".join(re.split(r"[.+]", version)[:2])


def _same_way(one: Load, other: Load) -> bool:
    """Whether the same model was loaded in the same way."""
    return replace(one, vllm_version="") == replace(other, vllm_version="")


def _last_residuals(seen: list[Observation], *, own: bool) -> list[tuple[int, Observation]]:
    """The residuals that can be computed, oldest first, of the last runs; of the model's own with its weights'."""
    known = [
        (residual + ((weight_residual(one) or 0) if own else 0), one)
        for one in seen
        if (residual := rest_residual(one)) is not None
    ]
    return sorted(known, key=lambda pair: pair[1].at)[-LAST_RUNS:]


def _source(load: Load, correction: float, runs: int, *, foreign: bool) -> str:
    sign = "-" if correction < 0 else "+"
    loads = "1 load" if runs == 1 else f"{runs} loads"
    what = "of other models" if foreign else "of this model"
    return (
        f"{sign}{format_bytes(abs(correction))} measured in {loads} {what} on this machine "
        f"with vLLM {load.vllm_version}"
    )
