"""What a model is made of, as `quantui inspect` shows it: lines for a person, one object for a script."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.checkpoint_words import count_text
from quantui.domain.formatting import format_bytes
from quantui.domain.weights.weight_census import parameters_by_role, weight_census

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import AttentionLayers, ModelShape
    from quantui.domain.models import ModelSpec


def shape_json(spec: ModelSpec) -> dict[str, Any]:
    """``shape``: every field of :class:`.ModelShape`; ``parameters_by_role``; ``parameters`` by either source."""
    shape = model_shape(spec.config, spec.tensors)
    census = weight_census(spec.config, spec.tensors)
    values = asdict(shape)
    for layers in values["attention"]:
        layers.pop("layers")
    return {
        "parameters": spec.parameters if spec.parameters is not None else shape.parameters,
        "parameters_by_role": None if census is None else parameters_by_role(census),
        "shape": values,
    }


def shape_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    """The lines between the architecture and the weights."""
    shape = model_shape(spec.config, spec.tensors)
    rows = [
        ("parameters", _parameters(spec, shape)),
        ("layers", _layers(shape)),
        *[("attention" if i == 0 else "", text) for i, text in enumerate(_attention(shape))],
    ]
    if shape.experts:
        rows.append(("experts", _experts(shape)))
    if shape.has_vision:
        rows.append(("vision", "yes"))
    if shape.rope_scaling is not None:
        rows.append(("rope scaling", shape.rope_scaling))
    return [*rows, *(("note", note) for note in shape.notes)]


def _parameters(spec: ModelSpec, shape: ModelShape) -> str:
    number = spec.parameters if spec.parameters is not None else shape.parameters
    if number is None:
        return "unknown"
    source = "computed from the tensor shapes" if spec.tensors else "computed from config.json"
    active = f", {count_text(shape.active_parameters)} a token" if shape.is_moe else ""
    return f"{count_text(number)}{active} ({source})"


def _layers(shape: ModelShape) -> str:
    if shape.layers is None:
        return "unknown"
    words = [f"{shape.layers} of {_known(shape.hidden_size)} wide"]
    if shape.intermediate_size is not None:
        words.append(f"MLP {shape.intermediate_size}")
    tied = ", tied" if shape.tied else ""
    return ", ".join([*words, f"vocabulary {_known(shape.vocabulary)}{tied}"])


def _attention(shape: ModelShape) -> list[str]:
    return [_one(layers, shape) for layers in shape.attention] or ["none that keeps a cache"]


def _one(layers: AttentionLayers, shape: ModelShape) -> str:
    count = f"{layers.count} layer" + ("s" if layers.count != 1 else "")
    if layers.kind == "mla":
        extra = f" and an index of {layers.indexer} B" if layers.indexer else ""
        return f"{count} latent: {layers.latent} elements{extra} a token"
    if layers.kind == "state":
        return f"{count} with a state of {format_bytes(layers.state_bytes)} a request"
    heads = f"{layers.kv_heads} K/V heads of {layers.head_dim}"
    if layers.value_dim:
        heads += f" and {layers.value_dim}"
    if layers.kind in {"full", "cross", "encoder"} and shape.heads:
        heads = f"{shape.heads} heads, {heads}"
    window = f" of {layers.window} tokens" if layers.window else ""
    return f"{count} {layers.kind}{window}: {heads}"


def _experts(shape: ModelShape) -> str:
    words = [f"{shape.experts} a layer, {_known(shape.experts_per_token)} used by a token"]
    if shape.moe_intermediate_size is not None:
        words.append(f"{shape.moe_intermediate_size} wide")
    if shape.shared_experts:
        words.append(f"{shape.shared_experts} shared")
    return ", ".join(words)


def _known(value: int | None) -> str:
    return "unknown" if value is None else str(value)
