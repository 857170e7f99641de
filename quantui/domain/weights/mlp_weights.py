"""The weights of a decoder's MLPs and experts, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantui.domain.architecture.config_view import positive
from quantui.domain.weights.decoder_families import trait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.config_view import ConfigView
    from quantui.domain.architecture.experts import ExpertFacts
    from quantui.domain.weights.decoder_families import Family
    from quantui.domain.weights.weight_groups import WeightSplit
    from quantui.domain.weights.weight_parts import Parts

_FOUR_TIMES = frozenset(
    {"gpt2", "gptj", "gpt_bigcode", "codegen", "bloom", "falcon", "mpt", "gpt_neo"}
)
_NO_MLP = frozenset({"mamba", "mamba2", "falcon_mamba"})


def dense_size(text: ConfigView, hidden: int, index: int = 0) -> int | None:
    """Inner size of a dense MLP."""
    kind = text.model_type
    if kind in {"llama4_text", "llama4"}:
        return text.whole("intermediate_size_mlp", "intermediate_size")
    if kind == "mpt":
        return int(hidden * (text.number("expansion_ratio") or 4))
    stated = text.values.get("intermediate_size")
    if isinstance(stated, list) and stated:
        return positive(stated[min(index, len(stated) - 1)])
    if kind in _FOUR_TIMES:
        names = ("n_inner", "ffn_hidden_size", "intermediate_size")
        return next((n for name in names if (n := positive(text.values.get(name)))), 4 * hidden)
    if text.flag("use_double_wide_mlp"):
        owners = (text.whole("num_hidden_layers") or 0) - text.count("num_kv_shared_layers")
        return text.count("intermediate_size") * (2 if index >= owners > 0 else 1) or None
    size = text.whole("intermediate_size", "block_ff_dim", "ffn_hidden_size", "ffn_dim", "n_inner")
    if kind == "qwen" and size:
        return size // 2
    if kind == "lfm2" and size and text.flag("block_auto_adjust_ff_dim", otherwise=True):
        size = int(2 * size / 3)
        size = int((text.number("block_ffn_dim_multiplier") or 1.0) * size)
        step = text.whole("block_multiple_of") or 256
        return step * -(-size // step)
    return size


def add_mlps(
    parts: Parts,
    text: ConfigView,
    family: Family,
    hidden: int,
    mixers: Sequence[tuple[str, ...]],
    experts: ExpertFacts,
) -> None:
    """Add every layer's MLP, and experts where it has them."""
    kind = text.model_type
    every = range(len(mixers))
    if kind in _NO_MLP:
        return
    sparse = set(experts.layers)
    dense = [i for i in every if i not in sparse or kind.startswith("gemma4")]
    if kind == "nemotron_h":
        dense = [i for i in dense if not mixers[i]]
    elif kind in {"granitemoehybrid", "granitemoeshared", "zamba2"}:
        dense = []
    elif text.items("block_configs") is not None:
        _add_block_mlps(parts, text, hidden, dense)
        dense = []
    sizes: dict[int, list[int]] = {}
    for index in dense:
        if size := dense_size(text, hidden, index):
            sizes.setdefault(size, []).append(index)
    bias = trait(text, family.mlp_bias)
    for size, layers in sizes.items():
        add_mlp(parts, "mlp.", hidden, size, layers, gated=family.gated, bias=bias)
    if kind in {"granitemoehybrid", "granitemoeshared"}:
        size = text.count("shared_intermediate_size")
        add_mlp(parts, "shared_mlp.", hidden, size, list(every), gated=True, bias=False)
    if experts.layers:
        _add_experts(parts, text, family, hidden, experts)


def add_mlp(
    parts: Parts,
    at: str,
    hidden: int,
    size: int,
    layers: Sequence[int],
    *,
    gated: bool,
    bias: bool,
) -> None:
    """One MLP a layer: up and down, and a gate beside them."""
    if gated:
        parts.linear(at + "gate_proj", size, hidden, layers, "column", bias=bias)
    parts.linear(at + "up_proj", size, hidden, layers, "column", bias=bias)
    parts.linear(at + "down_proj", hidden, size, layers, "row", bias=bias)


def _add_experts(
    parts: Parts, text: ConfigView, family: Family, hidden: int, experts: ExpertFacts
) -> None:
    layers, number, size = experts.layers, experts.experts, experts.intermediate_size
    kind = text.model_type
    if size is None:
        return
    parts.add("router", "mlp.gate", number, hidden, layers=layers)
    if trait(text, family.router_bias):
        parts.add("bias", "mlp.gate", number, layers=layers)
    corrected = family.router_correction or text.text("topk_method") == "noaux_tc"
    if corrected or text.flag("use_expert_bias"):
        parts.add("router", "mlp.gate.e_score_correction_bias", number, layers=layers)
    width = text.whole("moe_latent_size") or hidden
    if width != hidden:
        parts.linear("mixer.fc1_latent_proj", width, hidden, layers, "none")
        parts.linear("mixer.fc2_latent_proj", hidden, width, layers, "none")
    names = ("up_proj", "down_proj") if not family.gated else ("gate_proj", "up_proj", "down_proj")
    biased = family.sinks
    for name in names:
        shape = (width, size) if name == "down_proj" else (size, width)
        parts.add(
            "expert",
            f"mlp.experts.{{}}.{name}",
            *shape,
            split="experts",
            layers=layers,
            each=number,
        )
        if biased:
            split: WeightSplit = "none" if name == "down_proj" else "experts"
            parts.add(
                "bias",
                f"mlp.experts.{{}}.{name}",
                shape[0],
                split=split,
                layers=layers,
                each=number,
            )
    if (
        experts.shared
        and experts.shared_size
        and kind not in {"granitemoehybrid", "granitemoeshared"}
    ):
        bias = trait(text, family.mlp_bias) and kind != "gpt_oss"
        add_mlp(
            parts,
            "mlp.shared_experts.",
            hidden,
            experts.shared_size,
            layers,
            gated=family.gated,
            bias=bias,
        )
        if family.shared_gate:
            parts.add("router", "mlp.shared_expert_gate", 1, hidden, layers=layers)


def _add_block_mlps(parts: Parts, text: ConfigView, hidden: int, dense: Sequence[int]) -> None:
    """Nemotron-NAS: each layer has its own multiple of the hidden size (vllm, nemotron_nas.py)."""
    blocks = text.items("block_configs") or []
    for index in dense:
        block = blocks[index] if index < len(blocks) else None
        own = block.get("ffn") if isinstance(block, Mapping) else None
        if not isinstance(own, Mapping) or own.get("no_op"):
            continue
        multiple = own.get("ffn_mult")
        if (
            isinstance(multiple, int | float)
            and not isinstance(multiple, bool)
            and 0 < multiple < 100
        ):
            size = int(2 * multiple * hidden / 3)
            size = -(-size // 256) * 256
            add_mlp(parts, "mlp.", hidden, size, [index], gated=True, bias=False)
