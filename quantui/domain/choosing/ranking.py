"""How options are compared: every criterion between 0 and 1, weighed by the use case.

A factor of two in speed, memory or context moves its criterion by a third, so that a doubling counts the same
wherever it happens; eight times worse than the best is nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.choosing.costs import effort
from quantui.domain.choosing.use_cases import CRITERIA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from quantui.domain.choosing.options import Option
    from quantui.domain.choosing.recommendation import Cost
    from quantui.domain.choosing.use_cases import Criterion, UseCase
    from quantui.domain.methods import Method
    from quantui.domain.performance.quality import Quality

DOUBLINGS = 3.0
"""How many halvings of a quantity leave nothing of its criterion."""
TIGHT = 0.06
"""Taken from the sum when one request of the asked length only fits tightly: it may not start."""
UNTRIED = 0.03
"""Taken from the sum where nobody has measured what a format loses."""
ROUNDED_FP4, ROUNDED_FP4_UNPACKED = 0.05, 0.2
"""The same where weights are rounded to 4-bit floats while they load: that is new, and loses more than NVFP4 made with
data (NVIDIA, Introducing NVFP4). The second where the card has no FP4 units: nothing is gained by it over integers of
4 bit, which lose less (vLLM's documentation names Blackwell for FP4; the loss is each format's own)."""
MADE_FP4_UNPACKED = 0.12
"""Where a checkpoint of FP4 would have to be made for a card without FP4 units: it is a format for later cards."""
UNKNOWN_LOSS = 4.0
"""Percent; a loss nobody has measured counts as a poor 4-bit format's."""
ONE_SOURCE = 0.4
"""Percent on top of a loss that only one source has measured, often the format's own authors: about what repeated runs
of such scores differ by."""
WEIGHT_ONLY = 0.4
"""Of "hardware" where a format that computes in 8 or 4 bit only stores the weights so; and, at high load, of formats
that are made to: the gain in arithmetic is not had, and dequantizing costs some."""
SIXTEEN_BIT = 0.7
"""Of "hardware" for 16 bit at high load: nothing is dequantized, no faster unit is used."""
POOR_KERNELS = frozenset({"bitsandbytes", "GGUF"})
"""Families of which half is taken: poor performance or compatibility issues (GPUStack's vLLM study, conclusion 4)."""
BLOCK_SCALES = 0.9
"""Of "hardware" for FP8 with a scale a block: channel-wise weights with dynamic per-token activations are the most
performant (llm-compressor's compression schemes)."""
FEW_USERS, MANY_USERS = 4, 64
"""Where load begins to count, and where it counts in full."""

Judged = tuple["Option", "Quality", "Cost"]


@dataclass(frozen=True)
class Ranked:
    """An option with its quality and cost, and what it was worth.

    ``parts`` are weighed; the score is their sum less ``taken``, what is held against it, by its reason.
    """

    option: Option
    quality: Quality
    cost: Cost
    score: float
    parts: Mapping[Criterion, float]
    taken: Mapping[str, float]


@dataclass(frozen=True)
class Best:
    """The best of each quantity among the options, which the others are compared with."""

    tokens_per_s: float
    memory: int
    context: int
    slowest_seconds: float
    cards: int


def rank(options: Sequence[Judged], use_case: UseCase, users: int) -> tuple[Ranked, ...]:
    """The options, best first for so many ``users`` at once.

    Methods that the use case is about come first; equal ones in the catalogue's order, so that the answer never wavers.
    """
    best = _best(options)
    found = [_judge(one, best, use_case, users) for one in options]

    def key(item: tuple[int, Ranked]) -> tuple[bool, float, int]:
        place, one = item
        return one.option.candidate.method.name not in use_case.prefers, -round(one.score, 9), place

    return tuple(one for _, one in sorted(enumerate(found), key=key))


def _best(options: Sequence[Judged]) -> Best:
    return Best(
        max((_speed(option) or 0.0 for option, _, _ in options), default=0.0),
        min((_memory(option) for option, _, _ in options), default=0),
        max((option.fit.max_context or 0 for option, _, _ in options), default=0),
        max((cost.seconds or 0.0 for _, _, cost in options), default=0.0),
        min((len(option.layout.slots) for option, _, _ in options), default=0),
    )


def _judge(judged: Judged, best: Best, use_case: UseCase, users: int) -> Ranked:
    option, quality, cost = judged
    loss = _loss(quality)
    in_flight = option.candidate.way == "in flight"
    values: dict[Criterion, float] = {
        "speed": _speed_value(option, best),
        "quality": 1.0 - min(1.0, max(0.0, loss) / use_case.loss_scale) ** use_case.loss_power,
        "memory": _ratio(best.memory, _memory(option)),
        "room": _room(option),
        "context": _ratio(option.fit.max_context or 0, best.context),
        "effort": effort(cost, best.slowest_seconds, in_flight=in_flight),
        "hardware": _hardware(option, users),
        "cards": _ratio(max(1, best.cards), max(1, len(option.layout.slots))),
    }
    parts = {
        name: values[name] * use_case.weight(name) for name in CRITERIA if use_case.weight(name)
    }
    taken = dict(_taken(judged))
    return Ranked(option, quality, cost, sum(parts.values()) - sum(taken.values()), parts, taken)


def _taken(judged: Judged) -> Iterator[tuple[str, float]]:
    option, quality, _ = judged
    candidate = option.candidate
    if option.starts == "tight":
        yield "one request fits tightly", TIGHT
    native = option.support.how == "native"
    if candidate.way == "make" and candidate.method.family == "FP4" and not native:
        yield "FP4 to be made for a card without units for it", MADE_FP4_UNPACKED
    elif candidate.way == "in flight" and candidate.method.family == "FP4":
        where = "" if native else ", without units for it"
        yield (
            f"rounded to FP4 while loading{where}",
            ROUNDED_FP4 if native else ROUNDED_FP4_UNPACKED,
        )
    elif quality.loss_percent is None and quality.basis != "stored":
        yield "nobody has measured its loss", UNTRIED


def _loss(quality: Quality) -> float:
    """The loss that is ranked with, percent; a checkpoint served as it was quantized loses nothing more."""
    if quality.loss_percent is None:
        return 0.0 if quality.basis == "stored" else UNKNOWN_LOSS
    return quality.loss_percent + (ONE_SOURCE if quality.one_source else 0.0)


def _hardware(option: Option, users: int) -> float:
    """Whether the arithmetic suits the device and the load.

    Weights dequantized to 16 bit before each product cost time that few users do not feel; many feel it, and miss the
    faster units (llm-compressor's compression schemes: W4A16 for low load, W8A8 for high; GPUStack's vLLM study).
    """
    doublings = math.log2(max(1, users) / FEW_USERS) / math.log2(MANY_USERS / FEW_USERS)
    load = max(0.0, min(1.0, doublings))
    chosen = option.candidate.method
    if option.support.how != "native" or (option.layout.on_cpu and not _cpu_kernel(chosen)):
        value = WEIGHT_ONLY
    elif chosen.activation_bits < 16:
        value = BLOCK_SCALES if "block" in chosen.name else 1.0
    else:
        at_load = SIXTEEN_BIT if chosen.weight_bits >= 16 else WEIGHT_ONLY
        value = 1.0 - load * (1.0 - at_load)
    if option.support.eager or chosen.family in POOR_KERNELS:
        value *= 0.5
    return value


def _cpu_kernel(chosen: Method) -> bool:
    """Formats with kernels of their own on x86: 16 bit, packed 4 bit and INT8 W8A8 (vLLM's documentation, CPU)."""
    return chosen.weight_bits >= 16 or chosen.marlin or chosen.family.startswith("INT8")


def _speed_value(option: Option, best: Best) -> float:
    """Against the fastest; where nothing is known, fewer bytes to read are faster if the device has a kernel."""
    speed = _speed(option)
    if speed is not None:
        return _ratio(speed, best.tokens_per_s)
    if option.layout.on_cpu and not _cpu_kernel(option.candidate.method):
        return 1.0 / DOUBLINGS
    return _ratio(best.memory, _memory(option))


def _speed(option: Option) -> float | None:
    """Tokens a second over the requests that the cache holds."""
    return option.speed.tokens_per_s_total


def _memory(option: Option) -> int:
    """Weights over all cards, bytes."""
    return option.fit.weights.bytes * max(1, len(option.layout.slots))


def _room(option: Option) -> float:
    """The part of the budget that the weights leave; a half where the device is not known."""
    budget = option.fit.budget_bytes
    return max(0.0, 1.0 - option.fit.weights.bytes / budget) if budget else 0.5


def _ratio(value: float, best: float) -> float:
    """1 at the best, a third less for each halving."""
    if value <= 0 or best <= 0:
        return 0.0
    return max(0.0, min(1.0, 1.0 + math.log2(value / best) / DOUBLINGS))
