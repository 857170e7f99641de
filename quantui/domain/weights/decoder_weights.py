"""The weights of a decoder from its config alone: embeddings, attention, MLPs and experts, norms, head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.architecture.attention_layers import head_sizes
from quantui.domain.architecture.config_view import positive
from quantui.domain.architecture.experts import expert_facts
from quantui.domain.architecture.layer_schedule import layer_mixers
from quantui.domain.weights.decoder_families import Family, family_of, trait
from quantui.domain.weights.gemma_weights import add_gemma_parts
from quantui.domain.weights.mixer_weights import add_mixers
from quantui.domain.weights.mlp_weights import add_mlps
from quantui.domain.weights.weight_parts import Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.config_view import ConfigView
    from quantui.domain.weights.weight_groups import WeightGroup

_ATTENTION = frozenset({"full", "sliding", "chunked", "cross"})


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
    add_mlps(parts, text, family, hidden, mixers, experts)
    _add_norms(parts, text, family, hidden, mixers)
    return tuple(parts.groups), notes


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
