"""Why a choice stands where it does, in sentences with numbers; and what to mind about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.choosing.making import weights_16bit
from quantui.domain.choosing.ranking import FEW_USERS
from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.choosing.options import Option, Workings
    from quantui.domain.choosing.ranking import Ranked
    from quantui.domain.choosing.use_cases import Criterion
    from quantui.domain.performance.speed import Speed

_WORDS: dict[Criterion, str] = {
    "speed": "faster",
    "quality": "closer to 16 bit",
    "memory": "smaller",
    "room": "with more room left",
    "context": "longer in context",
    "effort": "less work first",
    "hardware": "computed in units the card has",
    "cards": "on fewer cards",
}


def reasons_of(one: Ranked, ranked: tuple[Ranked, ...], work: Workings) -> tuple[str, ...]:
    """The sentences, the weightiest first."""
    return tuple(_reasons(one, ranked, work))


def cautions_of(one: Ranked, work: Workings) -> tuple[str, ...]:
    """What may go wrong: how tight it is, what support and the catalogue warn of, disk, gating."""
    return tuple(dict.fromkeys(_cautions(one, work)))


def _reasons(one: Ranked, ranked: tuple[Ranked, ...], work: Workings) -> Iterator[str]:
    option = one.option
    yield _weights(option, work)
    yield from _cache(option, work)
    if text := _speed(option.speed, option, work):
        yield text
    yield _quality(one)
    yield from _devices(option)
    yield from _way(one)
    yield from _adapter(option)
    use = work.asked.use_case
    if option.candidate.method.name in use.prefers:
        yield f"{use.title[0].upper()}{use.title[1:]}: {use.reason}"
    elif ranked[0].option.candidate.method.name in use.prefers:
        yield f"After {ranked[0].option.candidate.method.title}, which is what this use is about."
    else:
        yield from _against_next(one, ranked)


def _weights(option: Option, work: Workings) -> str:
    size = option.fit.weights.bytes * max(1, len(option.layout.slots))
    plain = weights_16bit(work.situation.census)
    if option.candidate.way == "as it is" or not plain or size >= 0.97 * plain:
        stored = option.candidate.stored_as
        return f"Weights {format_bytes(size)}, " + (
            f"as stored ({stored[:40]})." if stored else "in 16 bit."
        )
    share = size / plain
    few = work.asked.users <= FEW_USERS
    what = f"each token reads {share:.0%} of them" if few else "the rest is left for the KV cache"
    return f"Weights {format_bytes(size)} instead of {format_bytes(plain)} in 16 bit: {what}."


def _cache(option: Option, work: Workings) -> Iterator[str]:
    result, asked = option.fit, work.asked
    if option.candidate.method.name == "qlora":
        yield (
            f"Training at {asked.context} tokens takes {format_bytes(result.transient.bytes)} of activations "
            f"and {format_bytes(result.lora.bytes)} for the adapter and its optimizer beside them."
        )
        return
    if result.kv_cache_tokens is None or result.max_context is None:
        yield "How much it takes could not be computed: sizes or free memory are unknown."
        return
    each = "" if len(option.layout.slots) < 2 else " on each GPU"
    text = f"{format_bytes(result.kv_cache.bytes)} for the KV cache{each}: {result.kv_cache_tokens} tokens"
    if asked.users > 1:
        yield f"{text}, {option.held} of {asked.users} requests of {asked.context} at full length."
    else:
        yield f"{text}, a context of up to {result.max_context}."


def _speed(speed: Speed, option: Option, work: Workings) -> str:
    rate = speed.tokens_per_s_per_user
    if option.candidate.method.name == "qlora":
        return ""
    if rate is None:
        if option.layout.on_cpu:
            return "How fast this processor is with it is not predicted: a run here will tell."
        if speed.relative_to_16bit is None:
            return "How fast it is cannot be said: the card is not known."
        return f"About {speed.relative_to_16bit:.1f} times the speed of 16 bit ({speed.basis})."
    users = option.held or 1
    against = f", {speed.relative_to_16bit:.1f} times 16 bit" if speed.relative_to_16bit else ""
    bound = {
        "weights": "reading weights decides",
        "kv cache": "reading the KV cache decides",
        "arithmetic": "arithmetic decides",
        "interconnect": "the link between the GPUs decides",
    }.get(speed.regime, "what decides is unknown")
    whose = (
        f"about {rate:.0f} tokens a second"
        if users == 1
        else f"about {rate * users:.0f} tokens a second over {users} requests, {rate:.0f} each"
    )
    return f"{whose[0].upper()}{whose[1:]}{against}: {bound} ({speed.basis})."


def _quality(one: Ranked) -> str:
    quality = one.quality
    if quality.basis == "stored":
        return "Nothing more is lost: the checkpoint is served as it was quantized."
    if quality.loss_percent is None:
        return "What it loses in quality is not known: compare it with the 16-bit model."
    if quality.loss_percent < 0.05:
        return "Nothing is lost: it is the model as published."
    low, high = quality.band or (quality.loss_percent, quality.loss_percent)
    return f"Expected loss of quality {quality.loss_percent:.1f} % ({low:.1f} to {high:.1f}; {quality.basis})."


def _devices(option: Option) -> Iterator[str]:
    layout = option.layout
    if layout.on_cpu:
        yield "Served by vLLM's CPU engine, in RAM."
        return
    if option.support.how == "native" and option.candidate.method.activation_bits < 16:
        name = layout.gpus[0].name or "the GPU"
        yield f"{name} computes in {option.candidate.method.activation_bits} bit."
    if len(layout.slots) > 1:
        how = (
            f"tensor parallel {layout.tensor_parallel}"
            if layout.pipeline_parallel == 1
            else f"tensor parallel {layout.tensor_parallel} x pipeline parallel {layout.pipeline_parallel}"
        )
        indices = ", ".join(str(gpu.index) for gpu in layout.gpus)
        yield f"Over GPUs {indices} ({how})."
        kinds = {slot.kind for slot in layout.slots}
        if len(kinds) > 1:
            yield f"The cards differ: {option.fit.device} has the least room and decides."


def _way(one: Ranked) -> Iterator[str]:
    candidate, cost = one.option.candidate, one.cost
    if candidate.method.name == "qlora":
        yield "Train with PEFT and bitsandbytes; quantui then merges the adapter into the 16-bit base and serves it."
    elif candidate.way == "variant" and candidate.variant is not None:
        variant = candidate.variant
        where = "is on this machine" if variant.source != "hub" else "is on the Hub"
        popular = f", {variant.downloads} downloads" if variant.downloads else ""
        size = f", {format_bytes(variant.size_bytes)}" if variant.size_bytes else ""
        yield f"{variant.ref} {where} ({variant.publisher or 'unknown publisher'}{popular}{size})."
    elif candidate.way == "in flight":
        yield "Quantized while vLLM loads: no checkpoint to make, nothing more on disk for it."
    elif candidate.way == "make":
        made = f", {format_bytes(cost.disk_bytes)} of disk in all" if cost.disk_bytes else ""
        yield f"No checkpoint of it is known: {candidate.needs.removesuffix('.')}{made}."
    elif not cost.steps:
        yield "Nothing to prepare."


def _adapter(option: Option) -> Iterator[str]:
    mode = option.candidate.mode
    if mode == "merge":
        yield "The adapter is merged into the 16-bit base first: no cost at each token."
    elif mode == "lora":
        beside = (
            "beside this checkpoint, which does not hold it"
            if option.candidate.variant
            else "beside it"
        )
        yield f"The adapter is served {beside} (--enable-lora), {format_bytes(option.fit.lora.bytes)} of memory."


def _against_next(one: Ranked, ranked: tuple[Ranked, ...]) -> Iterator[str]:
    """In which criteria it is ahead of the one after it, or behind the first."""
    place = next(index for index, other in enumerate(ranked) if other is one)
    if place == 0:
        if len(ranked) == 1:
            return
        other, word = ranked[1], "Ahead of"
    else:
        other, word = ranked[0], "Behind"
    gains = {name: one.parts[name] - other.parts.get(name, 0.0) for name in one.parts}
    sign = 1 if place == 0 else -1
    names = sorted(gains, key=lambda name: -sign * gains[name])
    told = [_WORDS[name] for name in names if sign * gains[name] > 0.01][:2]
    title = other.option.candidate.method.title
    if not told:
        yield f"{word} {title} by a hair: the two are nearly equal here."
    elif place == 0:
        yield f"Ahead of {title}: {' and '.join(told)}."
    else:
        yield f"Behind {title}, which is {' and '.join(told)}."


def _cautions(one: Ranked, work: Workings) -> Iterator[str]:
    option, candidate = one.option, one.option.candidate
    if option.starts == "tight":
        yield "Tight: within the error of the estimate it may not fit."
        if option.fit.safe_context and option.fit.safe_context < work.asked.context:
            yield f"A context of {option.fit.safe_context} is safe."
    elif option.fit.verdict == "tight" and work.asked.users > 1:
        yield f"Within the error of the estimate it may hold fewer than {option.held} requests at full length."
    if option.held < work.asked.users:
        yield (
            f"The cache holds {option.held} of {work.asked.users} requests at full length; "
            "vLLM lets the others wait."
        )
    yield from option.support.cautions
    if candidate.variant is not None and candidate.variant.gated:
        yield f"{candidate.variant.ref} is gated: its owner has to let you in first."
    disk = work.situation.hardware.host.disk("artifacts")
    if disk is not None and disk.free_bytes is not None and one.cost.disk_bytes > disk.free_bytes:
        yield (
            f"It needs {format_bytes(one.cost.disk_bytes)} of disk, "
            f"{format_bytes(disk.free_bytes)} are free."
        )
