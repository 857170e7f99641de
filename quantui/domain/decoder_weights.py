"""The weights of a decoder from its config alone: embeddings, attention, MLPs and experts, norms, head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.attention_layers import head_sizes
from quantui.domain.config_view import positive
from quantui.domain.decoder_families import Family, Trait, family_of
from quantui.domain.experts import ExpertFacts, expert_facts
from quantui.domain.gemma_weights import add_gemma_parts
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
    for run, layers in _head_runs(text, attention, mixers).items():
        _add_attention(parts, text, family, hidden, run, layers)
    add_mixers(parts, text, hidden, mixers)
    add_gemma_parts(parts, text, hidden, len(mixers))
    if text.model_type == "apertus":
        parts.add("other", "mlp.act_fn", 1, each=2, layers=range(len(mixers)))
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
    # Llama 3.2 Vision's table has eight rows more than its head, for images.
    rows = vocabulary + (8 if text.model_type == "mllama_text_model" else 0)
    parts.add("embedding", "model.embed_tokens", rows, width, split="vocabulary", stage="first")
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


@dataclass(frozen=True, slots=True)
class _Heads:
    """The attention of layers that are alike."""

    heads: int
    kv_heads: int
    size: int
    value_size: int
    has_keys: bool = True
    has_values: bool = True
    crosses: bool = False


def _head_runs(
    text: ConfigView, attention: Sequence[int], mixers: Sequence[tuple[str, ...]]
) -> dict[_Heads, list[int]]:
    """Layers whose attention is alike, together."""
    runs: dict[_Heads, list[int]] = {}
    owners = len(mixers) - text.count("num_kv_shared_layers")
    for index in attention:
        kind = next(kind for kind in mixers[index] if kind in _ATTENTION)
        heads = text.whole("num_attention_heads", "n_head", "n_heads", "num_heads")
        stated = text.values.get("num_query_heads")
        if isinstance(stated, list) and stated:
            heads = positive(stated[min(index, len(stated) - 1)])
        kv_heads, size, value = head_sizes(text, kind, index)
        if not (heads and kv_heads and size):
            continue
        shared = index >= owners > 0
        same = kind == "full" and text.flag("attention_k_eq_v")
        run = _Heads(
            heads, kv_heads, size, value, not shared, not (shared or same), kind == "cross"
        )
        runs.setdefault(run, []).append(index)
    return runs


def _add_attention(
    parts: Parts,
    text: ConfigView,
    family: Family,
    hidden: int,
    run: _Heads,
    layers: Sequence[int],
) -> None:
    kind = text.model_type
    if kind in {"minicpm3", "zamba2"}:
        # Latent matrices, and blocks that layers share: counted with the mixers.
        return
    bias, out_bias = trait(text, family.qkv_bias), trait(text, family.output_bias)
    heads, kv_heads, size = run.heads, run.kv_heads, run.size
    queries = heads * size * (2 if family.query_gate else 1)
    at = "cross_attn." if run.crosses else "self_attn."
    parts.linear(at + "q_proj", queries, hidden, layers, "column", bias=bias)
    for name, width, has in (
        ("k_proj", size, run.has_keys),
        ("v_proj", run.value_size, run.has_values),
    ):
        if has:
            rows = kv_heads * width
            parts.linear(at + name, rows, hidden, layers, "kv_heads", bias=bias, heads=kv_heads)
    parts.linear(at + "o_proj", hidden, heads * run.value_size, layers, "row", bias=out_bias)
    if family.sinks:
        parts.add("other", at + "sinks", heads, split="column", layers=layers)
    if run.crosses:
        parts.add("other", "cross_attn_gates", 1, each=2, layers=layers)
    normed = family.qk_norm and (not family.qk_norm_if or text.flag(family.qk_norm_if))
    if normed or run.crosses:
        wide = family.qk_norm in {"full", "heads"}
        vectors = 2 if family.qk_norm == "biased" else 1
        parts.norm(at + "q_norm", heads * size if wide else size, layers, vectors)
        if run.has_keys:
            parts.norm(at + "k_norm", kv_heads * size if wide else size, layers, vectors)


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
