"""The weights of a decoder from its config alone: embeddings, attention, MLPs and experts, norms, head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantui.domain.attention_layers import head_dimension, kv_head_count
from quantui.domain.config_view import positive
from quantui.domain.decoder_families import Family, Trait, family_of
from quantui.domain.experts import ExpertFacts, expert_facts
from quantui.domain.layer_schedule import layer_mixers
from quantui.domain.mixer_weights import add_mixers
from quantui.domain.weight_parts import Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.config_view import ConfigView
    from quantui.domain.weight_groups import WeightGroup, WeightSplit

_ATTENTION = frozenset({"full", "sliding", "chunked", "cross"})
_FOUR_TIMES = frozenset(
    {"gpt2", "gptj", "gpt_bigcode", "codegen", "bloom", "falcon", "mpt", "gpt_neo"}
)
_NO_MLP = frozenset({"mamba", "mamba2", "falcon_mamba"})


def decoder_weights(
    text: ConfigView, *, tied: bool
) -> tuple[tuple[WeightGroup, ...] | None, tuple[str, ...]]:
    """Every weight of the language model, and notes; None when the config lacks a size that all hangs on."""
    hidden = text.whole("hidden_size", "n_embd", "d_model", "n_embed")
    vocabulary = text.whole("vocab_size", "padded_vocab_size")
    mixers, notes = layer_mixers(text)
    if hidden is None or vocabulary is None or not mixers:
        return None, (*notes, "the weights cannot be counted: sizes are missing in config.json")
    family = family_of(text.model_type)
    if family is None:
        notes = (
            *notes,
            f"{text.model_type or 'the model type'} is not known: weights are counted as Llama's",
        )
        family = Family()
    parts = Parts()
    _add_ends(parts, text, family, hidden, vocabulary, tied=tied)
    attention = [i for i, kinds in enumerate(mixers) if _ATTENTION & set(kinds)]
    for heads, kv_heads, size, layers in _head_runs(text, attention, mixers):
        _add_attention(parts, text, family, (hidden, heads, kv_heads, size), layers)
    add_mixers(parts, text, hidden, mixers)
    experts = expert_facts(text)
    _add_mlps(parts, text, family, hidden, mixers, experts)
    _add_norms(parts, text, family, hidden, mixers)
    return tuple(parts.groups), notes


def trait(text: ConfigView, value: Trait) -> bool:
    """A trait that is fixed, or that a field of the config says."""
    return text.flag(value) if isinstance(value, str) else value


def _add_ends(
    parts: Parts, text: ConfigView, family: Family, hidden: int, vocabulary: int, *, tied: bool
) -> None:
    width = text.whole("word_embed_proj_dim") or hidden
    parts.add(
        "embedding", "model.embed_tokens", vocabulary, width, split="vocabulary", stage="first"
    )
    if width != hidden:
        parts.add(
            "linear", "model.decoder.project_in", hidden, width, stage="first", quantized=False
        )
        parts.add(
            "linear", "model.decoder.project_out", width, hidden, stage="last", quantized=False
        )
    if family.positions and (positions := text.whole(family.positions)):
        rows = positions + family.extra_positions
        parts.add("embedding", "model.embed_positions", rows, hidden, stage="first")
    if family.embedding_norm:
        parts.add("norm", "model.embedding_norm", hidden, each=family.norm, stage="first")
    if not tied:
        parts.add("head", "lm_head", vocabulary, width, split="vocabulary", stage="last")
    if trait(text, family.head_bias):
        parts.add("bias", "lm_head", vocabulary, split="vocabulary", stage="last")
    if family.final_norm and text.flag("do_layer_norm_before", otherwise=True):
        parts.norm("model.norm", hidden, None, family.norm)


def _head_runs(
    text: ConfigView, attention: Sequence[int], mixers: Sequence[tuple[str, ...]]
) -> list[tuple[int, int, int, list[int]]]:
    """Layers with the same (heads, K/V heads, head size), together."""
    runs: dict[tuple[int, int, int], list[int]] = {}
    for index in attention:
        heads = text.whole("num_attention_heads", "n_head", "n_heads", "num_heads")
        stated = text.values.get("num_query_heads")
        if isinstance(stated, list) and stated:
            heads = positive(stated[min(index, len(stated) - 1)])
        kv_heads, size = kv_head_count(text, index), head_dimension(text, index)
        if heads and kv_heads and size:
            runs.setdefault((heads, kv_heads, size), []).append(index)
    return [(*key, layers) for key, layers in runs.items()]


def _add_attention(
    parts: Parts,
    text: ConfigView,
    family: Family,
    sizes: tuple[int, int, int, int],
    layers: Sequence[int],
) -> None:
    hidden, heads, kv_heads, size = sizes
    kind = text.model_type
    if kind == "minicpm3":
        return
    inner = 2 * hidden if kind == "zamba2" else hidden
    bias, out_bias = trait(text, family.qkv_bias), trait(text, family.output_bias)
    if kind in {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}:
        out_bias = bias
    queries = heads * size * (2 if family.query_gate else 1)
    at = "self_attn."
    if kind == "zamba2":
        # Its attention blocks are few, shared by the hybrid layers: counted with the mixers.
        return
    parts.linear(at + "q_proj", queries, inner, layers, "column", bias=bias)
    parts.linear(
        at + "k_proj", kv_heads * size, inner, layers, "kv_heads", bias=bias, heads=kv_heads
    )
    parts.linear(
        at + "v_proj", kv_heads * size, inner, layers, "kv_heads", bias=bias, heads=kv_heads
    )
    parts.linear(at + "o_proj", hidden, heads * size, layers, "row", bias=out_bias)
    if family.sinks:
        parts.add("other", at + "sinks", heads, split="column", layers=layers)
    if family.qk_norm and (not family.qk_norm_if or text.flag(family.qk_norm_if)):
        widths = {
            "head": (size, size),
            "full": (heads * size, kv_heads * size),
            "heads": (heads * size, kv_heads * size),
            "all-heads": (heads * size, kv_heads * size),
            "head-biased": (size, size),
        }[family.qk_norm]
        vectors = 2 if family.qk_norm == "head-biased" or kind == "phi" else 1
        if kind == "phi":
            widths = (size, size)
        parts.norm(at + "q_norm", widths[0], layers, vectors)
        parts.norm(at + "k_norm", widths[1], layers, vectors)


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
    size = text.whole("intermediate_size", "block_ff_dim", "ffn_hidden_size", "ffn_dim", "n_inner")
    if kind == "qwen" and size:
        return size // 2
    if kind == "lfm2" and size and text.flag("block_auto_adjust_ff_dim", otherwise=True):
        size = int(2 * size / 3)
        size = int((text.number("block_ffn_dim_multiplier") or 1.0) * size)
        step = text.whole("block_multiple_of") or 256
        return step * -(-size // step)
    return size


def _add_mlps(
    parts: Parts,
    text: ConfigView,
    family: Family,
    hidden: int,
    mixers: Sequence[tuple[str, ...]],
    experts: ExpertFacts,
) -> None:
    kind = text.model_type
    every = range(len(mixers))
    if kind in _NO_MLP:
        return
    sparse = set(experts.layers)
    dense = [i for i in every if i not in sparse]
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


def _add_norms(
    parts: Parts,
    text: ConfigView,
    family: Family,
    hidden: int,
    mixers: Sequence[tuple[str, ...]],
) -> None:
    kind = text.model_type
    every = list(range(len(mixers)))
    number = family.norms
    if kind == "falcon":
        parallel = text.flag("parallel_attn", otherwise=True)
        if text.flag("new_decoder_architecture"):
            number = 2 if (text.whole("num_ln_in_parallel_attn") or 2) == 2 else 1
        else:
            number = 1 if parallel else 2
    if kind == "stablelm" and text.flag("use_parallel_residual"):
        number = 1
    if kind in {"mamba", "mamba2", "falcon_mamba"}:
        number = 1
    if text.items("block_configs") is not None:
        _add_block_norms(parts, text, hidden)
        return
    if kind == "zamba2":
        return
    for order in range(number):
        name = (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )[order]
        parts.norm(name, hidden, every, family.norm)


def _add_block_norms(parts: Parts, text: ConfigView, hidden: int) -> None:
    blocks = text.items("block_configs") or []
    for part, name in (("attention", "input_layernorm"), ("ffn", "post_attention_layernorm")):
        layers = [
            i
            for i, block in enumerate(blocks)
            if isinstance(block, Mapping)
            and isinstance(own := block.get(part), Mapping)
            and not own.get("no_op")
        ]
        parts.norm(name, hidden, layers)
