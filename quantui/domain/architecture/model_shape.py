"""What a model is made of, from its config.json: sizes, attention by kind, experts, context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain import checkpoint_facts as facts
from quantui.domain.architecture.attention_layers import (
    AttentionKind,
    AttentionLayers,
    attention_layers,
    head_dimension,
    kv_head_count,
)
from quantui.domain.architecture.checkpoint_format import classify_quantization
from quantui.domain.architecture.config_view import (
    ConfigView,
    positive,
    rope_parts,
    text_view,
    vision_view,
    whole_view,
)
from quantui.domain.architecture.experts import expert_facts
from quantui.domain.architecture.layer_schedule import ENCODER_TYPES, layer_count
from quantui.domain.architecture.quantization_readers import read_quantization
from quantui.domain.architecture.stored_kv_cache import stored_kv_dtype
from quantui.domain.weights.weight_census import active_parameters, census_with_notes, is_tied
from quantui.domain.weights.weight_groups import WeightBytes, WeightGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.models import TensorInfo

__all__ = [
    "AttentionKind",
    "AttentionLayers",
    "ModelShape",
    "WeightBytes",
    "WeightGroup",
    "model_shape",
]
_NOT_GENERATIVE = (
    "Model",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMaskedLM",
    "RewardModel",
    "ForRetrieval",
    "ForReward",
)


@dataclass(frozen=True)
class ModelShape:
    """The facts that memory, speed and support are computed from. None: unknown; ``notes`` says why."""

    model_type: str | None
    architecture: str | None
    """The class that vLLM picks: the first of ``architectures``."""
    layers: int | None
    hidden_size: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    intermediate_size: int | None
    """Of the dense MLP; None where every layer has experts only."""
    vocabulary: int | None
    tied: bool
    context_length: int | None
    """Tokens that vLLM serves without being told more."""
    rope_scaling: str | None
    """In words: ``yarn x4 from 32768``; None: no scaling."""
    sliding_window: int | None
    """Tokens, when at least one layer uses one."""
    experts: int | None
    """Routed experts of one layer; None in a dense model."""
    experts_per_token: int | None
    moe_intermediate_size: int | None
    shared_experts: int
    attention: tuple[AttentionLayers, ...]
    has_vision: bool
    is_encoder_decoder: bool
    is_generative: bool
    """False for encoders, embedding models and classifiers."""
    dtype: str | None
    """As torch names it: ``bfloat16``."""
    quantization: str | None
    """``quant_method`` of the checkpoint; None: stored in 16 or 32 bit."""
    quantization_bits: int | None
    group_size: int | None
    """-1: one scale a channel; None: unknown or not grouped."""
    parameters: int | None
    active_parameters: int | None
    """That one token passes through (its experts, not all), the embedding table left out."""
    notes: tuple[str, ...] = ()
    """What was not understood, worded for the user."""
    kv_cache_dtype: str | None = None
    """That a quantized checkpoint asks for its KV cache; None: the model's own."""
    stored_method: str | None = None
    """The catalogue's name of the format that ``quantization`` stands for; None: not quantized, or not known."""

    @property
    def is_moe(self) -> bool:
        """Whether some layers have routed experts."""
        return bool(self.experts)


def model_shape(
    config: Mapping[str, Any], tensors: tuple[TensorInfo, ...] | None = None
) -> ModelShape:
    """What the model is, from its config.json and, when there are headers, its ``tensors``.

    Never raises: what the config does not say, or says in a way that makes no sense, is None and a note.
    """
    text, whole = text_view(config), whole_view(config)
    dtype = facts.stored_dtype(config, tensors)
    attention, notes = attention_layers(text, dtype_bytes=4 if dtype == "float32" else 2)
    census, census_notes = census_with_notes(config, tensors)
    experts = expert_facts(text)
    stored, classified = read_quantization(config), classify_quantization(config)
    windows = [layer.window for layer in attention if layer.kind == "sliding" and layer.window]
    architecture = _architecture(config)
    parameters = sum(group.elements for group in census) if census else None
    if parameters is None and tensors is not None:
        parameters = facts.parameter_count(tensors, config)
    return ModelShape(
        model_type=_text(config.get("model_type")),
        architecture=architecture,
        layers=layer_count(text),
        hidden_size=text.whole("hidden_size", "n_embd", "d_model", "n_embed"),
        heads=text.whole("num_attention_heads", "n_head", "n_heads", "num_heads"),
        kv_heads=kv_head_count(text),
        head_dim=head_dimension(text),
        intermediate_size=text.whole("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim"),
        vocabulary=text.whole("vocab_size", "padded_vocab_size"),
        tied=is_tied(config),
        context_length=facts.context_length(config),
        rope_scaling=rope_words(text),
        sliding_window=min(windows, default=None),
        experts=experts.experts or None,
        experts_per_token=experts.per_token,
        moe_intermediate_size=experts.intermediate_size,
        shared_experts=experts.shared,
        attention=attention,
        has_vision=_has_vision(config),
        is_encoder_decoder=whole.flag("is_encoder_decoder") or text.flag("is_encoder_decoder"),
        is_generative=_is_generative(architecture, text),
        dtype=dtype,
        quantization=stored.method if stored else None,
        quantization_bits=stored.bits if stored else None,
        group_size=stored.group_size if stored else None,
        parameters=parameters,
        active_parameters=active_parameters(census, text) if census else None,
        notes=tuple(dict.fromkeys((*notes, *census_notes))),
        kv_cache_dtype=stored_kv_dtype(config),
        stored_method=(classified.method or None) if classified else None,
    )


def rope_words(text: ConfigView) -> str | None:
    """Rope scaling in words; None where positions are not scaled."""
    words = []
    for part in rope_parts(text.values):
        kind = part.get("rope_type") or part.get("type")
        if not isinstance(kind, str) or kind in {"default", "mrope"}:
            continue
        factor = part.get("factor")
        known = (
            isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 1e6
        )
        original = positive(part.get("original_max_position_embeddings"))
        words.append(
            kind
            + (f" x{factor:g}" if known else "")
            + (f" from {original}" if original is not None else "")
        )
    return ", ".join(dict.fromkeys(words)) or None


def _architecture(config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    return first if isinstance(first, str) and first else None


def _has_vision(config: Mapping[str, Any]) -> bool:
    if vision_view(config) is not None:
        return True
    names = ("vision_config", "visual", "mm_vision_tower", "vision_tower", "img_processor")
    return any(config.get(name) for name in names)


def _is_generative(architecture: str | None, text: ConfigView) -> bool:
    if text.model_type in ENCODER_TYPES:
        return False
    if architecture is None:
        return True
    return not architecture.endswith(_NOT_GENERATIVE) or architecture == "ChatGLMModel"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
