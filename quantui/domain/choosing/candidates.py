"""The ways each method of the catalogue could be had for a model and its adapters, and what has to be done first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.choosing.costs import (
    download_step,
    install_step,
    make_step,
    merge_step,
    train_step,
)
from quantui.domain.choosing.making import NOT_TO_BE_MADE, lacks_memory, weights_16bit
from quantui.domain.choosing.recommendation import Refusal
from quantui.domain.methods import methods
from quantui.domain.producing.produced import produced_method
from quantui.domain.producing.producers import made_as, producers
from quantui.domain.producing.recipes import default_recipe
from quantui.domain.support.method_formats import stored_candidates
from quantui.domain.versions import version_numbers

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.choosing.recommendation import (
        AdapterAdvice,
        AdapterMode,
        Situation,
        Step,
        Way,
    )
    from quantui.domain.choosing.variants import Variant
    from quantui.domain.methods import Method
    from quantui.domain.weights.weight_groups import WeightGroup

_BY_HAND = {
    "online": "It mixes formats by hand (--quantization-config): the formats themselves are listed.",
    "humming": "It is a set of kernels to be configured by hand, not a format.",
}


@dataclass(frozen=True)
class Candidate:
    """A method and one way to have it, before anything is said of devices."""

    method: Method
    way: Way
    shape: ModelShape
    census: tuple[WeightGroup, ...] | None
    stored_as: str | None
    mode: AdapterMode | None
    variant: Variant | None = None
    ready: bool = True
    needs: str = ""
    counted: Method | None = None
    """The method's own facts where the checkpoint's differ (its width); None: they do not."""

    @property
    def facts(self) -> Method:
        """What bytes and titles are taken from."""
        return self.counted or self.method

    @property
    def served(self) -> Method:
        """The format that vLLM meets: for a checkpoint to be made, what its producer writes."""
        if self.way != "make" or made_as(self.method.name) is None:
            return self.method
        return replace(produced_method(default_recipe(self.method.name)), title=self.method.title)


def candidates(
    situation: Situation, advice: AdapterAdvice | None
) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """A candidate for each method that can be had at all, the likeliest way; refusals for the rest.

    Hardware, memory and the engine are not looked at. A quantized checkpoint is served as it is, or another
    checkpoint of the same model is taken.
    """
    found: list[Candidate] = []
    refused: list[Refusal] = []
    for chosen in methods().values():
        one = _candidate(situation, chosen, advice)
        if isinstance(one, Candidate):
            found.append(one)
        else:
            refused.append(one)
    return tuple(found), tuple(refused)


def steps_of(
    candidate: Candidate, situation: Situation, stored_bytes: int, *, on_cpu: bool
) -> tuple[Step, ...]:
    """What has to be done before the candidate is served; ``stored_bytes`` is its weights' size."""
    steps: list[Step] = []
    variant = candidate.variant
    if variant is not None:
        if variant.source == "hub":
            steps.append(download_step(variant.ref, variant.size_bytes or stored_bytes))
    elif situation.download_bytes:
        steps.append(download_step(situation.model_ref, situation.download_bytes))
    if candidate.mode == "merge":
        steps.append(merge_step(len(situation.adapters), weights_16bit(situation.census)))
    if candidate.method.status == "training":
        steps.append(train_step(candidate.method.producers[0]))
        return tuple(steps)
    if candidate.way == "make":
        steps.append(
            make_step(
                candidate.method,
                situation.shape.parameters,
                stored_bytes,
                situation.hardware.host,
                on_cpu=on_cpu,
            )
        )
    if situation.plugins is None:
        steps += map(install_step, _packages(candidate.method, situation.vllm_version))
    return tuple(steps)


def _packages(chosen: Method, vllm: str) -> tuple[str, ...]:
    """What has to be beside vLLM: the plugin, which brings what it needs; before there was one, that itself."""
    if not chosen.plugin:
        return ()
    since = chosen.plugin_since
    older = since is not None and version_numbers(vllm) < since
    return chosen.requires if older else (chosen.plugin,)


def unquantized(
    shape: ModelShape, census: tuple[WeightGroup, ...] | None
) -> tuple[ModelShape, tuple[WeightGroup, ...] | None]:
    """The model as it would be in 16 bit: what another format is counted from."""
    plain = replace(shape, quantization=None, quantization_bits=None, group_size=None)
    if census is None or shape.quantization is None:
        return plain, census
    return plain, tuple(
        replace(group, stored_bytes=None, stored_width=None, quantized=_can_be_quantized(group))
        for group in census
    )


def _can_be_quantized(group: WeightGroup) -> bool:
    return group.quantized or group.role in ("linear", "expert")


def _candidate(
    situation: Situation, chosen: Method, advice: AdapterAdvice | None
) -> Candidate | Refusal:
    stored = situation.stored_method or situation.shape.quantization
    mode = advice.mode if advice else None
    if chosen.name == "none":
        if advice is not None and mode is None:
            return _refuse(chosen, "adapter", advice.reasons)
        return Candidate(chosen, "as it is", situation.shape, situation.census, stored, mode)
    if chosen.status in ("training", "other-runtime", "research"):
        return _refuse(chosen, chosen.status, (chosen.summary,), chosen.instead)
    if chosen.status == "retired" and (
        stored is None or chosen not in stored_candidates(stored, situation.shape)
    ):
        return _refuse(chosen, "retired", (chosen.summary,), chosen.instead)
    if chosen.name in _BY_HAND:
        return _refuse(chosen, "model", (_BY_HAND[chosen.name],))
    variant = _variant(situation, chosen)
    if variant is not None:
        return _from_variant(situation, chosen, variant, advice)
    if stored is not None:
        return _already(situation, chosen, stored)
    if advice is not None and mode is None:
        return _refuse(chosen, "adapter", advice.reasons)
    if chosen.in_flight:
        return Candidate(chosen, "in flight", situation.shape, situation.census, None, mode)
    if chosen.name in NOT_TO_BE_MADE:
        why, instead = NOT_TO_BE_MADE[chosen.name]
        return _refuse(chosen, "checkpoint", (f"No checkpoint of it is known. {why}",), instead)
    return _to_be_made(situation, chosen, mode)


def _to_be_made(
    situation: Situation, chosen: Method, mode: AdapterMode | None
) -> Candidate | Refusal:
    """Quantui makes the checkpoint, if this machine has the memory for it."""
    if made_as(chosen.name) is None:
        return _refuse(
            chosen, "checkpoint", ("No checkpoint of it is known, and nothing makes it.",)
        )
    recipe = default_recipe(chosen.name)
    title = producers()[recipe.producer].title
    lacking = lacks_memory(situation, recipe)
    return Candidate(
        chosen,
        "make",
        situation.shape,
        situation.census,
        None,
        mode,
        ready=not lacking,
        needs=f"quantui makes it with {title}"
        + (f", on a larger machine: {lacking}" if lacking else ""),
    )


def _variant(situation: Situation, chosen: Method) -> Variant | None:
    """The first of the method's variants that is worth its download: one on this machine, else the best ranked.

    A format that vLLM makes while loading needs no other checkpoint, unless the model itself would have to be
    downloaded and the variant is smaller.
    """
    found = [one for one in situation.variants if one.method == chosen.name]
    if not found:
        return None
    local = next((one for one in found if one.source != "hub"), None)
    best = local or found[0]
    if chosen.in_flight and situation.shape.quantization is None and local is None:
        size = best.size_bytes
        if not situation.download_bytes or size is None or size > situation.download_bytes:
            return None
    return best


def _from_variant(
    situation: Situation, chosen: Method, variant: Variant, advice: AdapterAdvice | None
) -> Candidate | Refusal:
    """A checkpoint of the base holds no adapter: one can only be kept beside it."""
    shape, census = unquantized(situation.shape, situation.census)
    mode: AdapterMode | None = None
    if advice is not None:
        if not advice.can_serve_lora:
            if situation.shape.quantization is None and advice.can_merge:
                return _made_after_merge(situation, chosen)
            return _refuse(chosen, "adapter", advice.reasons)
        mode = "lora"
    counted = _of_width(chosen, variant.bits)
    return Candidate(
        chosen,
        "variant",
        shape,
        census,
        variant.quant_method or chosen.name,
        mode,
        variant,
        counted=counted,
    )


def _of_width(chosen: Method, bits: int | None) -> Method | None:
    """The method with weights of another width than the catalogue's (GPTQ of 8 bit); None: it is the catalogue's."""
    if bits is None or bits == chosen.weight_bits or not 2 <= bits <= 8:
        return None
    more = (bits - chosen.weight_bits) / 8
    return replace(
        chosen,
        weight_bits=bits,
        bytes_per_linear_weight=chosen.bytes_per_linear_weight + more,
        bytes_formula=f"{bits} bit instead of {chosen.weight_bits:g}, scales as before",
        title=chosen.title.replace(f"{chosen.weight_bits:g} bit", f"{bits} bit"),
    )


def _made_after_merge(situation: Situation, chosen: Method) -> Candidate | Refusal:
    if not chosen.in_flight:
        return _to_be_made(situation, chosen, "merge")
    return Candidate(chosen, "in flight", situation.shape, situation.census, None, "merge")


def _already(situation: Situation, chosen: Method, stored: str) -> Refusal:
    base = f" {situation.base_ref} is the 16-bit model." if situation.base_ref else ""
    if chosen in stored_candidates(stored, situation.shape):
        text = f"The checkpoint is stored in {stored[:40]}: `none` serves it in its own format."
        return replace(_refuse(chosen, "checkpoint", (text,), ("none",)), stored_so=True)
    return _refuse(
        chosen,
        "checkpoint",
        (
            f"The checkpoint is quantized already ({stored[:40]}): vLLM cannot apply {chosen.title} on top of it."
            f"{base}",
        ),
        ("none",),
    )


def _refuse(
    chosen: Method, code: str, reasons: tuple[str, ...], instead: tuple[str, ...] = ()
) -> Refusal:
    return Refusal(chosen.name, chosen.title, code, reasons, instead, chosen.source)
