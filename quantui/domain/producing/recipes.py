"""From what a person asks for to a recipe: the producer, its defaults, its limits, and what contradicts them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from quantui.domain.methods import method
from quantui.domain.producing.groups import group_size_for
from quantui.domain.producing.producers import aliases, made_as, makings, producers
from quantui.domain.producing.recipe import Recipe
from quantui.domain.producing.refusals import (
    bad_option,
    cannot_be_made,
    foreign_option,
    needs_a_checkpoint,
    no_method,
    no_such_producer,
    quantized_already,
    unknown_to_producer,
    unmerged_adapter,
    vllm_makes_it,
    without_tokenizer,
)

if TYPE_CHECKING:
    from quantui.domain.draft import Draft, QuantizationChoice
    from quantui.domain.methods import Method
    from quantui.domain.models import ModelSpec
    from quantui.domain.producing.producers import Making, Producer

_Value = TypeVar("_Value", int, str, bool)


def recipe_for(
    quantization: QuantizationChoice, model: ModelSpec, *, always: bool = False
) -> Recipe | None:
    """What has to be made of ``model``; None where nothing has to be.

    Nothing is made for ``none``, for a format that vLLM makes while loading (unless a producer is named, or
    ``always``), and for a checkpoint that is quantized already (refused with ``always``).

    Raises QuantuiError ``quantize.*`` or ``method.needs-checkpoint`` (exit code 2), and ``quantize.unknown-model``
    (exit code 3) for a model that the producer refuses.
    """
    chosen = method(quantization.method)
    if always and chosen.name == "none":
        raise no_method()
    if not always and (chosen.name == "none" or model.quantization is not None):
        return None
    if model.quantization is not None:
        raise quantized_already(model)
    if chosen.in_flight and quantization.producer == "auto" and not always:
        return None
    making = _making(chosen, quantization, model)
    recipe = _settled(making, quantization, model)
    producer = producers()[making.producer]
    notes = [note for note in (_alias_note(chosen), making.note) if note]
    notes += _known_notes(making, producer, model)
    if recipe.needs_data and not model.has_tokenizer:
        raise without_tokenizer(model, recipe)
    return replace(
        recipe,
        why=_why(making, producer, quantization),
        notes=(*notes, *recipe.notes),
    )


def default_recipe(name: str) -> Recipe:
    """What ``quantui`` makes of the method ``name`` when nobody chooses anything; KeyError for one it cannot make."""
    made = made_as(name)
    if made is None:
        raise KeyError(name)
    making = next(iter(makings()[made].values()))
    bits = making.bits[0]
    return Recipe(
        method=made,
        producer=making.producer,
        writes=making.writes[bits],
        bits=bits,
        group_size=next(iter(making.groups_at(bits)), None),
        symmetric=next(iter(making.symmetric), None),
        format=next(iter(making.formats), None),
        rounding=next(iter(making.rounding), None),
        needs_data=_needs_data(making, next(iter(making.rounding), None)),
    )


def check_makeable(draft: Draft, recipe: Recipe) -> None:
    """Refuse (exit code 2) options elsewhere in ``draft`` that contradict making ``recipe``."""
    if draft.adapter.id is not None and draft.merge.on_failure == "serve-lora":
        raise unmerged_adapter(recipe)


def _making(chosen: Method, quantization: QuantizationChoice, model: ModelSpec) -> Making:
    """How the method is made, by the producer that is named or the method's first."""
    name = made_as(chosen.name)
    if name is None:
        if chosen.in_flight:
            raise vllm_makes_it(chosen)
        if chosen.status in ("current", "plugin"):
            raise needs_a_checkpoint(chosen, model)
        raise cannot_be_made(chosen)
    alias = aliases().get(chosen.name)
    if alias and quantization.bits is not None:
        name = alias.by_bits.get(quantization.bits, name)
    by_producer = makings()[name]
    if quantization.producer == "auto":
        return next(iter(by_producer.values()))
    if quantization.producer not in by_producer:
        raise no_such_producer(chosen, quantization.producer, tuple(by_producer))
    return by_producer[quantization.producer]


def _settled(making: Making, quantization: QuantizationChoice, model: ModelSpec) -> Recipe:
    """Every option with its value: the person's where they named one, else the producer's default."""
    bits = making.bits[0] if quantization.bits is None else quantization.bits
    if bits not in making.bits:
        raise bad_option(making, "bits", bits, making.bits)
    mixed = _one_of(making, "mixed_bits", quantization.mixed_bits, making.mixed_bits, default=False)
    format, notes = _format(making, quantization, mixed)
    writes = making.written(bits, format)
    if writes is None:
        widths = tuple(making.format_writes[format or ""])
        raise bad_option(making, "bits", bits, widths, f" as {format}")
    if mixed is not None and bits != 4:
        raise bad_option(making, "bits", bits, (4,), " with mixed_bits")
    if mixed is not None and quantization.symmetric is False:
        raise bad_option(making, "symmetric", False, (True,), " with mixed_bits")
    if not making.ignores and set(quantization.ignore) - {"lm_head"}:
        raise foreign_option(making, "ignore", ", ".join(quantization.ignore))
    groups = making.groups_at(bits)
    group: int | None = None
    if groups or quantization.group_size is not None:
        asked = _one_of(making, "group_size", quantization.group_size, groups)
        assert asked is not None
        group, smaller = group_size_for(
            model, asked, groups, quantization.ignore, chosen=quantization.group_size is not None
        )
        notes += smaller
    rounding = _one_of(making, "rounding", quantization.rounding, making.rounding)
    return Recipe(
        method=making.method,
        producer=making.producer,
        writes=writes,
        bits=bits,
        group_size=group,
        symmetric=_one_of(
            making,
            "symmetric",
            quantization.symmetric,
            making.symmetric if groups or not making.groups else (),
        ),
        ignore=quantization.ignore,
        format=format,
        mixed_bits=mixed,
        rounding=rounding,
        needs_data=_needs_data(making, rounding),
        notes=notes,
    )


def _format(
    making: Making, quantization: QuantizationChoice, mixed: int | None
) -> tuple[str | None, tuple[str, ...]]:
    """The format to write; where nobody named one and the first holds no such mix, the one that does, and a note."""
    format = _one_of(making, "format", quantization.format, making.formats)
    holding = making.mixed_formats.get(mixed or 0, making.formats)
    if format is None or format in holding:
        return format, ()
    if quantization.format is not None:
        raise bad_option(making, "format", format, holding, f" with mixed_bits = {mixed}")
    return holding[0], (f"{format} cannot hold {mixed}-bit weights: written as {holding[0]}.",)


def _needs_data(making: Making, rounding: str | None) -> bool:
    """Texts are run through the model always, or where GPTQ rounds it."""
    return making.data == "data" or (making.data == "optional" and rounding == "gptq")


def _one_of(
    making: Making,
    name: str,
    asked: _Value | None,
    allowed: tuple[_Value, ...],
    *,
    default: bool = True,
) -> _Value | None:
    if asked is None:
        return allowed[0] if allowed and default else None
    if not allowed:
        raise foreign_option(making, name, asked)
    if asked not in allowed:
        raise bad_option(making, name, asked, allowed)
    return asked


def _alias_note(chosen: Method) -> str:
    alias = aliases().get(chosen.name)
    return alias.note if alias else ""


def _known_notes(making: Making, producer: Producer, model: ModelSpec) -> list[str]:
    """What the producer's own lists say of this model; refuses where it would."""
    architecture = model.architectures[0] if model.architectures else None
    notes: list[str] = []
    for known in (producer.known, making.known):
        listed = known.has(model.model_type, architecture)
        if listed is not False:
            continue
        if known.only:
            others = tuple(name for name in makings()[making.method] if name != producer.name)
            raise unknown_to_producer(making, producer, known, model, others)
        notes.append(
            f"{producer.title}'s own list for {making.method} does not have "
            f"{architecture or model.model_type}: it is tried all the same ({known.source})."
        )
    return notes


def _why(making: Making, producer: Producer, quantization: QuantizationChoice) -> str:
    if quantization.producer != "auto":
        return f"{producer.title} makes it, as asked: {producer.why}."
    others = [producers()[name].title for name in makings()[making.method] if name != producer.name]
    also = f" {' and '.join(others)} can make it too." if others else ""
    return f"{producer.title} makes it: {producer.why}.{also}"
