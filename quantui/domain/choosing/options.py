"""A candidate on this machine: the layout it is best served with, what it takes there, how fast it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.choosing.adapter_advice import lora_rank
from quantui.domain.fitting.fit import fit
from quantui.domain.fitting.fit_facts import Device, FitRequest, LoraSlots
from quantui.domain.methods import method
from quantui.domain.performance.quality import expected_quality
from quantui.domain.performance.speed import decode_speed
from quantui.domain.support.method_findings import called

if TYPE_CHECKING:
    from quantui.domain.choosing.candidates import Candidate
    from quantui.domain.choosing.layouts import Layout, Slot
    from quantui.domain.choosing.recommendation import Situation
    from quantui.domain.choosing.use_cases import UseCase
    from quantui.domain.fitting.fit_facts import Fit, Verdict
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.performance.quality import Quality
    from quantui.domain.performance.speed import Speed
    from quantui.domain.support.method_support import Support


LORA_SECONDS = 0.002
"""What adapters beside the base add to each token (Punica, arXiv 2310.18547: "only adding 2ms latency per token")."""


@dataclass(frozen=True)
class Asked:
    """What the situation asks for, with the use case's defaults filled in."""

    use_case: UseCase
    context: int
    users: int


@dataclass(frozen=True)
class Placed:
    """A candidate in one layout.

    ``held``: requests of the asked length that the cache holds, at most the asked; ``starts``: the verdict for one of
    them, which is what vLLM refuses or not. The others wait their turn.
    """

    candidate: Candidate
    layout: Layout
    fit: Fit
    support: Support
    held: int
    starts: Verdict

    @property
    def fits(self) -> bool:
        """Whether it can be served, and by the expected figures holds one request of the asked length at least."""
        return self.starts in ("fits", "tight") and self.held >= 1


@dataclass(frozen=True)
class Option(Placed):
    """The same with its decoding speed over the requests that the cache holds."""

    speed: Speed


@dataclass
class Workings:
    """Answers within one recommendation, so that nothing is computed twice."""

    situation: Situation
    asked: Asked
    layouts: tuple[tuple[Layout, ...], ...]
    quality: dict[tuple[str, str | None], Quality]

    def quality_of(self, candidate: Candidate) -> Quality:
        """The expected loss; the same for all layouts."""
        own = candidate.stored_as if candidate.way == "as it is" else None
        eight = candidate.counted is not None and candidate.counted.weight_bits == 8
        rounded = method("w8a16") if eight else candidate.method
        key = rounded.name, own
        if key not in self.quality:
            self.quality[key] = expected_quality(rounded, candidate.shape.parameters, stored_as=own)
        return self.quality[key]


def devices(layout: Layout, report: HardwareReport) -> tuple[Device, ...]:
    """What the memory model is asked about: the cards, or the RAM."""
    if layout.on_cpu:
        host = report.host
        free = host.ram_available_bytes
        return (
            Device(
                True, host.ram_total_bytes, host.ram_total_bytes if free is None else free, "RAM"
            ),
        )
    return tuple(map(_device, layout.slots))


def _device(slot: Slot) -> Device:
    gpu = slot.gpu
    total, free = gpu.total_bytes, gpu.free_bytes
    if total is not None and gpu.reserved_bytes:
        total -= gpu.reserved_bytes
    return Device(
        False,
        total,
        total if free is None else free,
        called(gpu),
        compute_capability=gpu.compute_capability,
        others_bytes=gpu.used_bytes,
        unified_memory=bool(gpu.unified_memory),
        index=gpu.index,
    )


def placed(candidate: Candidate, layout: Layout, answer: Support, work: Workings) -> Placed:
    """The candidate in this layout, where ``answer`` says that it is supported."""
    situation, asked = work.situation, work.asked
    where = devices(layout, situation.hardware)
    result = fit_in(candidate, layout, answer, where, work, asked.users)
    held = min(asked.users, result.users) if result.users is not None else asked.users
    starts = result.verdict
    if starts in ("tight", "does not fit") and asked.users > 1:
        alone = fit_in(candidate, layout, answer, where, work, 1)
        starts = alone.verdict
        if result.verdict == "does not fit" and starts != "does not fit":
            result = fit_in(candidate, layout, answer, where, work, held) if held > 1 else alone
    return Placed(candidate, layout, result, answer, held, starts)


def timed(option: Placed, work: Workings) -> Option:
    """With its speed; an adapter beside the base slows each step."""
    candidate, layout, result = option.candidate, option.layout, option.fit
    speed = decode_speed(
        candidate.shape,
        result.weights.bytes,
        result.kv_bytes_per_token,
        candidate.method,
        layout.slowest,
        users=max(1, option.held),
        context=work.asked.context,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        own_runs=work.situation.own_runs,
    )
    if candidate.mode == "lora":
        speed = _with_adapter(speed)
    return Option(candidate, layout, result, option.support, option.held, option.starts, speed)


def _with_adapter(speed: Speed) -> Speed:
    def slower(rate: float | None) -> float | None:
        return None if rate is None else 1 / (1 / rate + LORA_SECONDS)

    each = speed.tokens_per_s_per_user
    if not each or speed.basis == "own run":
        return speed
    share = 1 / (1 + each * LORA_SECONDS)
    total, relative = speed.tokens_per_s_total, speed.relative_to_16bit
    return replace(
        speed,
        tokens_per_s_per_user=slower(each),
        tokens_per_s_total=None if total is None else total * share,
        relative_to_16bit=None if relative is None else relative * share,
        low=slower(speed.low),
        high=slower(speed.high),
        formula=f"{speed.formula} + {LORA_SECONDS * 1e3:.0f} ms a token for the adapter",
        source=f"{speed.source}; adapter: Punica (arXiv 2310.18547), whose kernels vLLM's descend from",
    )


def fit_in(
    candidate: Candidate,
    layout: Layout,
    answer: Support,
    where: tuple[Device, ...],
    work: Workings,
    users: int,
    *,
    suggest: bool = False,
) -> Fit:
    """What it takes there for so many ``users``; ``suggest``: with the smallest change that would help."""
    situation = work.situation
    slots = None
    if candidate.mode == "lora":
        slots = LoraSlots(max(1, len(situation.adapters)), lora_rank(situation.adapters) or 16)
    request = FitRequest(
        context=work.asked.context,
        users=users,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        utilization=situation.utilization,
        dtype=answer.dtype or situation.dtype,
        eager=answer.eager,
        lora_slots=slots,
        vllm_version=situation.vllm_version,
    )
    return fit(
        candidate.shape,
        candidate.census,
        candidate.facts,
        where,
        request,
        calibration=situation.calibration,
        stored_bytes=situation.stored_bytes if candidate.way == "as it is" else None,
        suggest=suggest,
    )
