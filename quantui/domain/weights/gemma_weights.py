"""What Gemma 3n and Gemma 4 add to attention and MLP: inputs for each layer, several streams, low-rank bypasses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.architecture.config_view import ConfigView
    from quantui.domain.weights.weight_parts import Parts


def add_gemma_parts(parts: Parts, text: ConfigView, hidden: int, count: int) -> None:
    """Add them; nothing for other models. (transformers, modeling_gemma3n.py and modeling_gemma4.py.)"""
    kind = text.model_type
    if not kind.startswith(("gemma3n", "gemma4")):
        return
    layers = range(count)
    width = text.count("hidden_size_per_layer_input")
    if width:
        rows = text.whole("vocab_size_per_layer_input") or text.count("vocab_size")
        parts.add(
            "embedding",
            "model.embed_tokens_per_layer",
            rows,
            count * width,
            split="vocabulary",
            stage="first",
        )
        parts.add("other", "model.per_layer_model_projection", count * width, hidden, stage="first")
        parts.add("norm", "model.per_layer_projection_norm", width, stage="first")
        parts.linear("per_layer_input_gate", width, hidden, layers, "none")
        parts.linear("per_layer_projection", hidden, width, layers, "none")
        parts.norm("post_per_layer_input_norm", hidden, layers)
    if kind.startswith("gemma3n"):
        _add_streams(parts, text, hidden, layers)
    elif text.flag("enable_moe_block"):
        experts = text.count("num_experts")
        parts.add("router", "router.scale", hidden, layers=layers)
        parts.add("router", "router.per_expert_scale", experts, layers=layers)
        parts.norm("feedforward_layernorms", hidden, layers, 3)


def _add_streams(parts: Parts, text: ConfigView, hidden: int, layers: range) -> None:
    """Gemma 3n's alternating updates (arXiv:2301.13310) and learned augmented residuals (arXiv:2411.07501)."""
    streams = text.whole("altup_num_inputs") or 4
    rank = text.whole("laurel_rank") or 64
    parts.add("other", "model.altup_projections", hidden, hidden, each=streams - 1, stage="first")
    parts.add(
        "other", "model.altup_unembed_projections", hidden, hidden, each=streams - 1, stage="last"
    )
    parts.linear("laurel.linear_left", rank, hidden, layers, "none")
    parts.linear("laurel.linear_right", hidden, rank, layers, "none")
    parts.norm("laurel.post_laurel_norm", hidden, layers)
    parts.norm("altup.router_norm", hidden, layers)
    parts.add("router", "altup.modality_router", streams, hidden, layers=layers)
    for name, rows in (("correction_coefs", streams), ("prediction_coefs", streams**2)):
        parts.add("other", f"altup.{name}", rows, streams, layers=layers)
    parts.add("other", "altup.correct_output_scale", hidden, layers=layers)
