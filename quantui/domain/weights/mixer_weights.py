"""The weights of what is not plain attention: latent attention, state space, gated delta net, short convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantui.domain.architecture.config_view import positive
from quantui.domain.architecture.state_size import inner_size, mamba2_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quantui.domain.architecture.config_view import ConfigView
    from quantui.domain.weights.weight_groups import WeightSplit
    from quantui.domain.weights.weight_parts import Parts


def add_mixers(
    parts: Parts, text: ConfigView, hidden: int, mixers: Sequence[tuple[str, ...]]
) -> None:
    """Add every mixer that is not an attention of queries, keys and values."""
    adders: dict[str, Callable[[Parts, ConfigView, int, list[int]], None]] = {
        "mla": _add_latent,
        "mamba1": _add_mamba1,
        "mamba2": _add_mamba2,
        "gdn": _add_delta_net,
        "kda": _add_kimi_delta,
        "lightning": _add_lightning,
        "conv": _add_convolution,
    }
    for kind, add in adders.items():
        layers = [index for index, kinds in enumerate(mixers) if kind in kinds]
        if layers:
            add(parts, text, hidden, layers)
    if text.model_type == "minicpm3":
        _add_latent(parts, text, hidden, list(range(len(mixers))))
    if text.model_type == "zamba2":
        _add_shared_blocks(parts, text, hidden, mixers)


def _add_latent(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    """DeepSeek's latent attention (arXiv:2405.04434, section 2.1)."""
    heads = text.count("num_attention_heads")
    nope, rope = text.count("qk_nope_head_dim"), text.count("qk_rope_head_dim")
    latent, value = text.count("kv_lora_rank"), text.count("v_head_dim")
    bias = text.flag("attention_bias")
    low = None if text.null("q_lora_rank") else text.whole("q_lora_rank")
    at = "self_attn."
    if low:
        parts.linear(at + "q_a_proj", low, hidden, layers, "none", bias=bias)
        parts.norm(at + "q_a_layernorm", low, layers)
        parts.linear(at + "q_b_proj", heads * (nope + rope), low, layers, "column")
    else:
        parts.linear(at + "q_proj", heads * (nope + rope), hidden, layers, "column")
    parts.linear(at + "kv_a_proj_with_mqa", latent + rope, hidden, layers, "none", bias=bias)
    parts.norm(at + "kv_a_layernorm", latent, layers)
    parts.linear(at + "kv_b_proj", heads * (nope + value), latent, layers, "column")
    parts.linear(at + "o_proj", hidden, heads * value, layers, "row", bias=bias)
    if text.whole("index_topk") is not None and low:
        size, number = text.whole("index_head_dim") or 128, text.whole("index_n_heads") or 64
        parts.linear(at + "indexer.wq_b", number * size, low, layers, "none")
        parts.linear(at + "indexer.wk", size, hidden, layers, "none")
        parts.norm(at + "indexer.k_norm", size, layers, 2)
        parts.add(
            "linear", at + "indexer.weights_proj", number, hidden, layers=layers, quantized=False
        )


def _add_mamba1(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    inner = inner_size(text) or 0
    state = text.whole("mamba_d_state", "state_size") or 0
    kernel = text.whole("mamba_d_conv", "conv_kernel") or 4
    rank = text.whole("mamba_dt_rank", "time_step_rank") or -(-hidden // 16)
    bias = text.flag("mamba_proj_bias", "use_bias")
    at = "mixer." if text.model_type != "jamba" else "mamba."
    parts.linear(at + "in_proj", 2 * inner, hidden, layers, "column", bias=bias)
    parts.linear(at + "x_proj", rank + 2 * state, inner, layers, "row")
    parts.linear(at + "dt_proj", inner, rank, layers, "column", bias=True)
    parts.linear(at + "out_proj", hidden, inner, layers, "row", bias=bias)
    _add_conv(parts, text, at, inner, kernel, layers)
    parts.add("state", at + "A_log", inner, state, split="column", layers=layers)
    parts.add("state", at + "D", inner, split="column", layers=layers)
    if text.model_type == "jamba":
        for name, width in (("dt", rank), ("b", state), ("c", state)):
            parts.norm(f"{at}{name}_layernorm", width, layers)


def _add_mamba2(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    sizes, inner = mamba2_sizes(text), inner_size(text) or 0
    if sizes is None:
        return
    heads, _, groups, state, kernel = sizes
    bias = text.flag("mamba_proj_bias", "use_bias", "add_bias_linear")
    if text.model_type == "falcon_h1":
        bias = text.flag("mamba_proj_bias")
    at = "mamba." if text.model_type not in {"mamba2", "nemotron_h"} else "mixer."
    shared = 2 * groups * state
    parts.linear(at + "in_proj", 2 * inner + heads, hidden, layers, "column", bias=bias)
    # The groups' rows are whole on each rank where there are fewer groups than ranks.
    parts.linear(at + "in_proj", shared, hidden, layers, "kv_heads", bias=bias, heads=groups)
    out_bias = text.flag("projectors_bias") if text.model_type == "falcon_h1" else bias
    parts.linear(at + "out_proj", hidden, inner, layers, "row", bias=out_bias)
    _add_conv(parts, text, at, inner, kernel, layers)
    _add_conv(parts, text, at, shared, kernel, layers, groups)
    for name in ("A_log", "D", "dt_bias"):
        parts.add("state", at + name, heads, split="column", layers=layers)
    if text.model_type != "falcon_h1" or text.flag("mamba_rms_norm"):
        parts.norm(at + "norm", inner, layers)


def _add_conv(
    parts: Parts,
    text: ConfigView,
    at: str,
    width: int,
    kernel: int,
    layers: list[int],
    groups: int = 0,
) -> None:
    split: WeightSplit = "kv_heads" if groups else "column"
    parts.add("convolution", at + "conv1d", width, kernel, split=split, layers=layers, heads=groups)
    if text.flag("mamba_conv_bias", "use_conv_bias", otherwise=True):
        parts.add(
            "convolution", at + "conv1d.bias", width, split=split, layers=layers, heads=groups
        )


def _add_delta_net(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    """Gated delta net of Qwen3-Next and Qwen3.5 (transformers, modeling_qwen3_next.py)."""
    keys, values = text.count("linear_num_key_heads"), text.count("linear_num_value_heads")
    key, value = text.count("linear_key_head_dim"), text.count("linear_value_head_dim")
    kernel = text.whole("linear_conv_kernel_dim") or 4
    at = "linear_attn."
    parts.linear(at + "in_proj_qkvz", 2 * keys * key + 2 * values * value, hidden, layers, "column")
    parts.linear(at + "in_proj_ba", 2 * values, hidden, layers, "column")
    parts.linear(at + "out_proj", hidden, values * value, layers, "row")
    width = 2 * keys * key + values * value
    parts.add("convolution", at + "conv1d", width, kernel, split="column", layers=layers)
    parts.add("state", at + "A_log", values, split="column", layers=layers)
    parts.add("state", at + "dt_bias", values, split="column", layers=layers)
    parts.norm(at + "norm", value, layers)


def _add_kimi_delta(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    """Kimi Linear's delta attention (transformers, modeling_kimi_linear.py)."""
    own = text.values.get("linear_attn_config")
    given = own if isinstance(own, Mapping) else {}
    heads = positive(given.get("num_heads")) or text.count("linear_num_heads")
    size = positive(given.get("head_dim")) or text.count("linear_head_dim")
    kernel = positive(given.get("short_conv_kernel_size")) or 4
    width, at = heads * size, "self_attn."
    for name in ("q", "k", "v"):
        parts.linear(f"{at}{name}_proj", width, hidden, layers, "column")
        parts.add("convolution", f"{at}{name}_conv1d", width, kernel, split="column", layers=layers)
    parts.linear(at + "f_a_proj", size, hidden, layers, "none")
    parts.linear(at + "f_b_proj", width, size, layers, "column")
    parts.linear(at + "b_proj", heads, hidden, layers, "column")
    parts.linear(at + "g_a_proj", size, hidden, layers, "none")
    parts.linear(at + "g_b_proj", width, size, layers, "column")
    parts.linear(at + "o_proj", hidden, width, layers, "row")
    parts.add("state", at + "A_log", heads, split="column", layers=layers)
    parts.add("state", at + "dt_bias", width, split="column", layers=layers)
    parts.norm(at + "o_norm", size, layers)


def _add_lightning(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    """MiniMax's lightning attention (transformers, modeling_minimax.py)."""
    heads = text.count("num_attention_heads")
    size = text.whole("head_dim") or (hidden // heads if heads else 0)
    at = "self_attn."
    parts.linear(at + "qkv_proj", 3 * heads * size, hidden, layers, "column")
    parts.linear(at + "output_gate", heads * size, hidden, layers, "column")
    parts.linear(at + "out_proj", hidden, heads * size, layers, "row")
    parts.norm(at + "norm", heads * size, layers)


def _add_convolution(parts: Parts, text: ConfigView, hidden: int, layers: list[int]) -> None:
    """LFM2's gated short convolution (transformers, modeling_lfm2.py)."""
    bias, kernel = text.flag("conv_bias"), text.whole("conv_L_cache") or 3
    parts.linear("conv.in_proj", 3 * hidden, hidden, layers, "column", bias=bias)
    parts.linear("conv.out_proj", hidden, hidden, layers, "row", bias=bias)
    parts.add("convolution", "conv.conv", hidden, kernel, split="column", layers=layers)
    if bias:
        parts.add("convolution", "conv.conv.bias", hidden, split="column", layers=layers)


def _add_shared_blocks(
    parts: Parts, text: ConfigView, hidden: int, mixers: Sequence[tuple[str, ...]]
) -> None:
    """Zamba2: a few attention blocks that its hybrid layers share, each with its own low-rank changes."""
    hybrid = [index for index, kinds in enumerate(mixers) if "full" in kinds]
    blocks = text.whole("num_mem_blocks") or 1
    heads = text.count("num_attention_heads")
    size = 2 * hidden // heads if heads else 0
    rank = text.whole("adapter_rank") or 128
    inner = text.whole("intermediate_size") or 4 * hidden
    shared = hybrid[:blocks]
    at = "shared_transformer."
    bias = text.flag("add_bias_linear")
    for name in ("q_proj", "k_proj", "v_proj"):
        parts.linear(f"{at}self_attn.{name}", heads * size, 2 * hidden, shared, "column")
    parts.linear(at + "self_attn.o_proj", hidden, heads * size, shared, "row")
    parts.linear(at + "feed_forward.gate_up_proj", 2 * inner, hidden, shared, "column", bias=bias)
    parts.linear(at + "feed_forward.down_proj", hidden, inner, shared, "row", bias=bias)
    parts.norm(at + "input_layernorm", 2 * hidden, shared)
    parts.norm(at + "pre_ff_layernorm", hidden, shared)
    # Each shared block keeps a pair of adapters for every hybrid layer that it serves.
    parts.linear(at + "feed_forward.gate_up_proj_adapter.0", rank, hidden, hybrid, "none")
    parts.linear(at + "feed_forward.gate_up_proj_adapter.1", 2 * inner, rank, hybrid, "column")
    if text.flag("use_shared_attention_adapter"):
        for name in ("q", "k", "v"):
            parts.linear(f"{at}self_attn.{name}_adapter.0", rank, 2 * hidden, hybrid, "none")
            parts.linear(f"{at}self_attn.{name}_adapter.1", heads * size, rank, hybrid, "column")
    parts.linear("linear", hidden, hidden, hybrid, "none")
    parts.norm("mamba_decoder.input_layernorm", hidden, list(range(len(mixers))))
