"""What a model is made of, from its config.json: sizes, attention by kind, experts, context."""

from __future__ import annotations

from dataclasses import dataclass

from quantui.domain.attention_layers import AttentionKind, AttentionLayers
from quantui.domain.weight_groups import WeightBytes, WeightGroup

__all__ = ["AttentionKind", "AttentionLayers", "ModelShape", "WeightBytes", "WeightGroup"]


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

    @property
    def is_moe(self) -> bool:
        """Whether some layers have routed experts."""
        return bool(self.experts)
