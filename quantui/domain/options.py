"""A candidate on this machine: the layout it is best served with, what it takes there, how fast it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.adapter_advice import lora_rank
from quantui.domain.fit import fit
from quantui.domain.fit_facts import Device, FitRequest, LoraSlots
from quantui.domain.method_support import support
from quantui.domain.quality import expected_quality
from quantui.domain.recommendation import Refusal
from quantui.domain.speed import decode_speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.candidates import Candidate
    from quantui.domain.fit_facts import Fit, Verdict
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.layouts import Layout, Slot
    from quantui.domain.method_support import Support
    from quantui.domain.quality import Quality
    from quantui.domain.recommendation import Situation
    from quantui.domain.speed import Speed
    from quantui.domain.use_cases import UseCase

_SPLIT = "serve.tensor-parallel"
"""Code of refusals about dividing heads, layers and groups (method_splits.py)."""
SPEED_UP = 1.3
"""How much faster, in tokens a second, twice the cards have to be before "maximum speed" takes them."""


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
        key = candidate.method.name, own
        if key not in self.quality:
            self.quality[key] = expected_quality(
                candidate.method, candidate.shape.parameters, stored_as=own
            )
        return self.quality[key]


def best_option(candidate: Candidate, work: Workings) -> Option | Refusal:
    """The layout to serve the candidate with: the fewest cards that hold what is asked.

    "Maximum speed" takes more cards where they make it a good deal faster. Where nothing holds all of the asked
    users, the layout that holds most of them is taken. A refusal says why no layout will do.
    """
    found: list[Placed] = []
    refused: list[tuple[Layout, Support]] = []
    for same_count in work.layouts:
        of_count: list[Placed] = []
        for layout in same_count:
            answer = _supported(candidate, layout, work.situation)
            if not answer.supported:
                refused.append((layout, answer))
                continue
            if any(_same_cards(layout, other.layout) for other in of_count):
                continue
            of_count.append(placed(candidate, layout, answer, work))
        found += of_count
        if not found and all(_for_good(answer) for _, answer in refused):
            break
        if found and not _wants_more(found, work.asked):
            break
    good = [option for option in found if option.fits]
    # Tensor parallel answers sooner: layers are dealt out to stages only where nothing else holds the model.
    undivided = [option for option in good if option.layout.pipeline_parallel == 1]
    if good:
        return _choose(undivided or good, work)
    if found:
        return _does_not_fit(min(found, key=lambda option: option.fit.missing_bytes), work)
    return _unsupported(candidate, refused)


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
        f"GPU {gpu.index} ({gpu.name or 'unknown'})",
        compute_capability=gpu.compute_capability,
        others_bytes=gpu.used_bytes,
        unified_memory=bool(gpu.unified_memory),
        index=gpu.index,
    )


def _supported(candidate: Candidate, layout: Layout, situation: Situation) -> Support:
    return support(
        candidate.method,
        gpus=layout.gpus,
        on_cpu=layout.on_cpu,
        shape=candidate.shape,
        dtype=situation.dtype,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        vllm_version=situation.vllm_version,
        capabilities=situation.engine_methods,
        packages=situation.plugins,
        stored_as=candidate.stored_as,
        cpu_flags=situation.hardware.host.cpu_flags,
    )


def placed(candidate: Candidate, layout: Layout, answer: Support, work: Workings) -> Placed:
    """The candidate in this layout, where ``answer`` says that it is supported."""
    situation, asked = work.situation, work.asked
    where = devices(layout, situation.hardware)
    result = _fit(candidate, layout, answer, where, work, asked.users)
    held = min(asked.users, result.users) if result.users is not None else asked.users
    starts = result.verdict
    if starts in ("tight", "does not fit") and asked.users > 1:
        alone = _fit(candidate, layout, answer, where, work, 1)
        starts = alone.verdict
        if result.verdict == "does not fit" and starts != "does not fit":
            result = _fit(candidate, layout, answer, where, work, held) if held > 1 else alone
    return Placed(candidate, layout, result, answer, held, starts)


def timed(option: Placed, work: Workings) -> Option:
    """With its speed."""
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
    return Option(candidate, layout, result, option.support, option.held, option.starts, speed)


def _fit(
    candidate: Candidate,
    layout: Layout,
    answer: Support,
    where: tuple[Device, ...],
    work: Workings,
    users: int,
    *,
    suggest: bool = False,
) -> Fit:
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
        candidate.method,
        where,
        request,
        calibration=situation.calibration,
        suggest=suggest,
    )


def _for_good(answer: Support) -> bool:
    """Refused for what more cards do not change: anything but how the model divides over them."""
    return any(one.code != _SPLIT for one in answer.refused)


def _same_cards(one: Layout, other: Layout) -> bool:
    """Of one set of cards the first split that is supported is kept: tensor parallel answers sooner than pipeline."""
    return [slot.gpu.index for slot in one.slots] == [slot.gpu.index for slot in other.slots]


def _wants_more(found: list[Placed], asked: Asked) -> bool:
    """Whether more cards should be looked at."""
    good = [option for option in found if option.fits and option.layout.pipeline_parallel == 1]
    if not good:
        return True
    if asked.use_case.name == "max-speed":
        return True
    return not any(option.fit.verdict == "fits" and option.held >= asked.users for option in good)


def _choose(good: list[Placed], work: Workings) -> Option:
    if work.asked.use_case.name == "max-speed":
        best, *others = (timed(option, work) for option in good)
        for option in others:
            old, new = best.speed.tokens_per_s_total, option.speed.tokens_per_s_total
            grown = len(option.layout.slots) / max(1, len(best.layout.slots))
            needed = 1.0 if grown <= 1 else SPEED_UP ** (grown / 2)
            if old is not None and new is not None and new >= old * needed:
                best = option
        return best
    return timed(max(good, key=lambda option: _order(option, work.asked)), work)


def _order(option: Placed, asked: Asked) -> tuple[float, ...]:
    whole = option.held >= asked.users
    return (
        whole,
        option.held,
        option.fit.verdict == "fits",
        -len(option.layout.slots),
        -option.layout.pipeline_parallel,
        option.layout.slowest.bandwidth_bytes_per_s if option.layout.slowest else 0.0,
    )


def _does_not_fit(nearest: Placed, work: Workings) -> Refusal:
    candidate, layout = nearest.candidate, nearest.layout
    where = devices(layout, work.situation.hardware)
    result = _fit(candidate, layout, nearest.support, where, work, 1, suggest=True)
    code = "model" if result.verdict == "unsupported" else "memory"
    reasons = result.reasons or (f"It does not fit into {result.device}.",)
    change = result.smallest_change
    if change is not None:
        reasons = (*reasons, f"{change.text}.".replace("..", "."))
    return Refusal(
        candidate.method.name,
        candidate.method.title,
        code,
        reasons,
        source=result.weights.source,
        fit=result,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        gpus=tuple(gpu.index for gpu in layout.gpus),
    )


def _unsupported(candidate: Candidate, refused: list[tuple[Layout, Support]]) -> Refusal:
    """In terms of the smallest layout, since larger ones only add reasons."""
    method, (_, first) = candidate.method, refused[0]
    code = next(iter(_codes(first)), "hardware")
    return Refusal(
        method.name,
        method.title,
        code,
        first.reasons,
        method.instead,
        "; ".join(dict.fromkeys(one.why for one in first.refused if one.why)) or method.source,
    )


def _codes(answer: Support) -> Iterator[str]:
    for one in answer.refused:
        if one.code.startswith("engine") or "vLLM" in one.text[:22]:
            yield "engine"
        elif "experts" in one.text and "none" in one.text:
            yield "model"
        else:
            yield "hardware"
