"""Every weight of a model in groups: from the safetensors headers when they are known, else from config.json alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.attention_layers import kv_head_count
from quantui.domain.architecture.config_view import text_view, vision_view, whole_view
from quantui.domain.architecture.experts import expert_facts
from quantui.domain.architecture.layer_schedule import ENCODER_TYPES, layer_count
from quantui.domain.architecture.module_names import is_named
from quantui.domain.architecture.quantization_readers import read_quantization
from quantui.domain.architecture.stored_bytes import stored_bytes
from quantui.domain.weights.decoder_families import family_of
from quantui.domain.weights.decoder_weights import decoder_weights
from quantui.domain.weights.header_weights import header_weights
from quantui.domain.weights.rotary_table import rotary_elements
from quantui.domain.weights.vision_weights import vision_weights
from quantui.domain.weights.weight_groups import TABLE, WeightGroup
from quantui.domain.weights.weight_pieces import in_pieces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.architecture.config_view import ConfigView
    from quantui.domain.architecture.stored_quantization import StoredQuantization
    from quantui.domain.models import TensorInfo
    from quantui.domain.weights.weight_groups import WeightRole

Census = tuple[WeightGroup, ...]


def weight_census(
    config: Mapping[str, Any], tensors: tuple[TensorInfo, ...] | None = None
) -> Census | None:
    """The groups, from headers when there are ``tensors``; None when nothing gives the sizes. Never raises."""
    return census_with_notes(config, tensors)[0]


def census_with_notes(
    config: Mapping[str, Any], tensors: tuple[TensorInfo, ...] | None = None
) -> tuple[Census | None, tuple[str, ...]]:
    """As :func:`weight_census`, with notes on what was guessed, worded for the user."""
    stored = read_quantization(config)
    text = text_view(config)
    known, notes = _from_config(config, text)
    if tensors:
        counted = header_weights(
            tensors,
            layers=layer_count(text),
            tied=is_tied(config),
            stored=stored,
            kv_heads=kv_head_count(text) or 0,
            known=known or (),
        )
        return in_pieces(counted, known or ()) + _tables(text), ()
    if known is not None and stored is not None:
        known = as_stored(known, stored)
    return (None if known is None else known + _tables(text)), notes


def _tables(text: ConfigView) -> Census:
    """What vLLM computes while loading, as groups without parameters."""
    elements = rotary_elements(text)
    if not elements:
        return ()
    return (WeightGroup("other", TABLE, 0, elements, 1, 1, "none", "layer"),)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding table."""
    text, whole = text_view(config), whole_view(config)
    for place in (text.values, whole.values, text.defaults):
        if isinstance(value := place.get("tie_word_embeddings"), bool):
            return value
    return False


def as_stored(census: Census, stored: StoredQuantization) -> Census:
    """The groups of a quantized checkpoint: what its config leaves in 16 bit is set apart, the rest has its width."""
    made: list[WeightGroup] = []
    for group in census:
        if not group.quantized:
            made.append(group)
            continue
        if stored.experts_only and group.role != "expert":
            made.append(replace(group, quantized=False))
            continue
        parts: dict[StoredQuantization | None, list[int]] = {}
        for index in group.layers or (0,):
            scheme = _scheme_of(group.name.replace("{}", str(index), 1), stored)
            parts.setdefault(scheme, []).append(index)
        for scheme, indices in parts.items():
            part = _share(group, indices) if len(parts) > 1 else group
            made.append(replace(part, quantized=False) if scheme is None else _in(part, scheme))
    return tuple(made)


def _scheme_of(name: str, stored: StoredQuantization) -> StoredQuantization | None:
    """What the module ``name`` is stored in; None: 16 bit."""
    if is_named(name, stored.skipped):
        return None
    return next((one for names, one in stored.by_name if is_named(name, names)), stored)


def _in(group: WeightGroup, stored: StoredQuantization) -> WeightGroup:
    width = stored_bytes(stored, group.rows, group.columns)
    per = width / (group.rows * group.columns) if width is not None else None
    return replace(group, stored_width=per, stored_as=stored.method)


def parameters_by_role(census: Census) -> dict[WeightRole, int]:
    """Elements of each role."""
    total: Counter[WeightRole] = Counter()
    for group in census:
        total[group.role] += group.elements
    return {role: elements for role, elements in total.items() if elements}


def active_parameters(census: Census, text: ConfigView) -> int:
    """Parameters that one token passes through: its experts and not all, and no row of the embedding table.

    A tied table is read whole for the logits, so it counts.
    """
    facts = expert_facts(text)
    tied = not any(group.role == "head" for group in census)
    total = 0
    for group in census:
        if group.role == "vision" or (group.role == "embedding" and not tied):
            continue
        if group.role == "expert" and facts.experts and facts.per_token:
            total += group.elements * min(facts.per_token, facts.experts) // facts.experts
        else:
            total += group.elements
    return total


def _share(group: WeightGroup, layers: list[int]) -> WeightGroup:
    each = group.count // max(1, len(group.layers))
    count = each * len(layers)
    return replace(
        group, count=count, elements=group.rows * group.columns * count, layers=tuple(layers)
    )


def _from_config(
    config: Mapping[str, Any], text: ConfigView
) -> tuple[Census | None, tuple[str, ...]]:
    if text.model_type in ENCODER_TYPES or text.flag("is_encoder_decoder"):
        return None, ("the weights of an encoder are counted from headers only",)
    groups, notes = decoder_weights(text, tied=is_tied(config))
    if groups is None:
        return None, notes
    guessed = family_of(text.model_type) is None
    vision = vision_view(config)
    if vision is not None:
        towers, more = vision_weights(config, vision, text)
        groups, notes = groups + towers, (*notes, *more)
        guessed = guessed or bool(more)
    if guessed:
        groups = tuple(replace(group, exact=False) for group in groups)
    return groups, notes
