"""Why a checkpoint is not made: one error for each reason, with what can be made instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.four_bit import sixteen_bit_base
from quantui.domain.methods import methods
from quantui.domain.producing.producers import made_as, makings, producers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.methods import Method
    from quantui.domain.models import ModelSpec
    from quantui.domain.producing.producers import Known, Making, Producer
    from quantui.domain.producing.recipe import Recipe

_AS_TYPED = {
    "bits": "--bits",
    "group_size": "--group-size",
    "symmetric": "--asymmetric",
    "format": "--format",
    "mixed_bits": "--mixed-bits",
    "rounding": "--rounding",
    "ignore": "--ignore",
}
"""Options of ``[quantization]`` by the flags of `quantui quantize`."""


def no_method() -> QuantuiError:
    """Nothing says what to make."""
    return QuantuiError(
        "quantize.no-method",
        "No quantization method is named.",
        fix=f"Name one (--method). {_makeable()} `quantui recommend` ranks them for the model.",
    )


def quantized_already(model: ModelSpec) -> QuantuiError:
    """A checkpoint that is in few bits already."""
    better = sixteen_bit_base(model.ref)
    return QuantuiError(
        "quantize.quantized-base",
        f"{model.ref} is quantized already ({(model.quantization or '')[:40]}): it cannot be quantized again.",
        "What its rounding took away is gone, and a second one adds its own loss.",
        f"Give the 16-bit model{f', {better},' if better else ''} in its place.",
    )


def cannot_be_made(chosen: Method) -> QuantuiError:
    """A method that no living library makes, or that is no format at all."""
    nearest = ", ".join(_nearest(chosen))
    if chosen.status == "training":
        return QuantuiError(
            "quantize.training",
            f"{chosen.title} is how an adapter is trained, not a format to serve.",
            "The adapter is merged into the 16-bit base, and what comes out is quantized as any model is.",
            f"Name the adapter, and a method: {nearest}.",
        )
    since = ""
    if chosen.until:
        since = f" vLLM has not read it since {'.'.join(map(str, chosen.until))}"
        since += f" ({chosen.source_of('until')})."
    return QuantuiError(
        "quantize.no-producer",
        f"{chosen.title} cannot be made: no library that makes it is alive.",
        f"{chosen.summary}{since}",
        f"Take the nearest that can be made: {nearest}." if nearest else _makeable(),
    )


def needs_a_checkpoint(chosen: Method, model: ModelSpec) -> QuantuiError:
    """A format that vLLM serves and that quantui has no producer for."""
    makers = ", ".join(chosen.producers) or "its own producer"
    nearest = ", ".join(_nearest(chosen))
    return QuantuiError(
        "method.needs-checkpoint",
        f"{chosen.title} needs a checkpoint in that format; {model.ref} is not quantized.",
        f"{makers} writes it; quantui cannot.",
        f"Give a copy in that format (`quantui inspect {model.ref} --variants` looks for one), or take "
        + (f"the nearest that can be made: {nearest}." if nearest else f"another. {_makeable()}"),
    )


def vllm_makes_it(chosen: Method) -> QuantuiError:
    """A format that only exists while vLLM runs."""
    nearest = ", ".join(_nearest(chosen))
    return QuantuiError(
        "quantize.in-flight-only",
        f"{chosen.title} is made by vLLM while it loads: there is no checkpoint of it to make.",
        "It costs seconds at each start and no disk.",
        f"Serve the model with quantization.method = {chosen.name!r}, or make the nearest: {nearest}.",
    )


def no_such_producer(chosen: Method, asked: str, makers: Sequence[str]) -> QuantuiError:
    """A producer that does not make the method."""
    makes = ", ".join(name for name, by in makings().items() if asked in by)
    return QuantuiError(
        "quantize.producer",
        f"{producers()[asked].title} does not make {chosen.name}.",
        f"It makes {makes}.",
        f"Take {' or '.join(makers)}, or leave --producer out.",
    )


def bad_option(
    making: Making, name: str, asked: object, allowed: Sequence[object], where: str = ""
) -> QuantuiError:
    """A value that the producer does not take; the fix names the nearest that works."""
    title = producers()[making.producer].title
    takes = ", ".join(_said(name, one) for one in allowed)
    elsewhere = _elsewhere(making, asked) if name == "bits" else ""
    near = _near(asked, allowed)
    return QuantuiError(
        f"quantize.{name.replace('_', '-')}",
        f"{title} does not make {making.method} with {name} = {_said(name, asked)}{where}.",
        f"It takes {takes}.",
        f"Take {_said(name, near)}{f', or {elsewhere}' if elsewhere else ''}.",
    )


def foreign_option(making: Making, name: str, asked: object) -> QuantuiError:
    """An option that means nothing for the method."""
    have = [
        f"{method} ({producer})"
        for method, by in makings().items()
        for producer, one in by.items()
        if getattr(
            one,
            {"group_size": "groups", "format": "formats", "ignore": "ignores"}.get(name, name),
            (),
        )
    ]
    return QuantuiError(
        "quantize.foreign-option",
        f"{making.method} made by {making.producer} has no {name}; {_said(name, asked)} was given.",
        f"Methods that have it: {', '.join(have)}.",
        f"Leave quantization.{name} ({_AS_TYPED[name]}) out.",
    )


def unknown_to_producer(
    making: Making,
    producer: Producer,
    known: Known,
    model: ModelSpec,
    others: Sequence[str],
) -> QuantuiError:
    """A kind of model that the producer refuses."""
    kind = model.architectures[0] if known.architectures else model.model_type
    listed = known.architectures or known.model_types
    fix = f"Take --producer {' or '.join(others)}." if others else _makeable()
    return QuantuiError(
        "quantize.unknown-model",
        f"{producer.title} does not know {kind}.",
        f"It knows {len(listed)} kinds of model ({known.source}).",
        fix,
        ExitCode.DOES_NOT_FIT,
        detail=(f"known: {', '.join(listed)}",),
    )


def unmerged_adapter(recipe: Recipe) -> QuantuiError:
    """An adapter that would be kept beside its base when the merge fails."""
    return QuantuiError(
        "quantize.unmerged-adapter",
        f'merge.on_failure is "serve-lora", and {recipe.method} is made of the merged model.',
        "An adapter beside its base leaves nothing to quantize.",
        "Leave merge.on_failure out, or take a method that vLLM makes while loading (bitsandbytes).",
    )


def without_tokenizer(model: ModelSpec, recipe: Recipe) -> QuantuiError:
    """A model that texts cannot be run through."""
    without = ", ".join(
        name for name, by in makings().items() if any(one.data == "none" for one in by.values())
    )
    return QuantuiError(
        "quantize.no-tokenizer",
        f"{model.ref} has no tokenizer, and {recipe.method} runs texts through the model.",
        fix=f"Put the tokenizer's files beside the weights, or take a method that needs no data: {without}.",
    )


def _nearest(chosen: Method) -> list[str]:
    """What of ``instead``, or of the same family, can be made."""
    known = methods()
    near = [name for name in chosen.instead if made_as(name)]
    if not near:
        near = [name for name in makings() if known[name].family == chosen.family]
    if not near:
        near = [name for name in makings() if known[name].weight_bits == chosen.weight_bits]
    return near


def _makeable() -> str:
    return f"quantui can make: {', '.join(makings())}."


def _elsewhere(making: Making, bits: object) -> str:
    """Another producer of the same method, or a method like it, that has the width."""
    for name, one in makings()[making.method].items():
        if bits in one.bits and name != making.producer:
            return f"--producer {name}"
    known = methods()
    family = known[making.method].family.replace("INT4", "INT8").replace("INT8", "INT")
    for method, by in makings().items():
        alike = known[method].family.replace("INT4", "INT8").replace("INT8", "INT") == family
        if method != making.method and alike and bits in next(iter(by.values())).bits:
            return f"the method {method}"
    return ""


def _near(asked: object, allowed: Sequence[object]) -> object:
    numbers = [one for one in allowed if isinstance(one, int) and not isinstance(one, bool)]
    if isinstance(asked, int) and not isinstance(asked, bool) and numbers:
        return min(numbers, key=lambda one: (abs(one - asked), -one))
    return allowed[0]


def _said(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value} (a whole row)" if name == "group_size" and value == -1 else str(value)
