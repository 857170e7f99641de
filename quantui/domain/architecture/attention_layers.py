"""The layers of a model that own a cache in vLLM, by kind of attention: what a KV cache is counted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from quantui.domain.architecture.config_view import positive
from quantui.domain.architecture.layer_schedule import layer_mixers
from quantui.domain.architecture.state_size import STATE_KINDS, state_bytes

if TYPE_CHECKING:
    from quantui.domain.architecture.config_view import ConfigView

AttentionKind = Literal["full", "sliding", "chunked", "mla", "state", "cross", "encoder"]
"""Which cache vLLM gives a layer (vllm/v1/kv_cache_interface.py, 0.32): ``state`` is a Mamba, gated delta net,
short convolution or linear attention state of fixed size a request; ``encoder`` keeps nothing."""
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_KV_HEADS = (
    "num_key_value_heads",
    "n_head_kv",
    "num_kv_heads",
    "multi_query_group_num",
    "num_attention_groups",
)
_WITH_CROSS = frozenset({"whisper", "bart", "mbart", "t5", "florence2", "nemotron_parse"})
_MLA_AS_HEADS = frozenset({"minicpm3"})
"""Their latent is expanded before the cache (vllm/model_executor/models/minicpm3.py)."""


@dataclass(frozen=True, slots=True)
class AttentionLayers:
    """Layers that are alike: ``count`` of them, at the indices ``layers``.

    Layers that read another layer's cache (gemma3n, ``num_kv_shared_layers``) own none and are not counted.
    """

    kind: AttentionKind
    count: int
    kv_heads: int = 0
    """Before any tensor parallel split; 0 for ``state`` and ``mla``."""
    head_dim: int = 0
    """Elements of one head's K."""
    value_dim: int = 0
    """Elements of one head's V; 0 means as ``head_dim``."""
    window: int | None = None
    """Tokens of a sliding window or of an attention chunk."""
    latent: int = 0
    """MLA: elements a token, ``kv_lora_rank + qk_rope_head_dim``, not split by tensor parallel."""
    indexer: int = 0
    """DeepSeek V3.2's sparse attention: bytes a token of the indexer's own cache; 0: it has none."""
    state_bytes: int = 0
    """``state``: bytes of one request's state in one layer, the whole model's (tensor parallel divides it)."""
    layers: tuple[int, ...] = ()
    """The decoder layers' indices, in order: what a pipeline stage holds is counted from them."""

    def elements_per_token(self, tensor_parallel: int = 1) -> int:
        """KV elements of one token in one of these layers on one rank; 0 for ``state`` and ``encoder``.

        GQA: ``max(1, kv_heads / TP) * (head_dim + value_dim)``; MLA: the latent, on every rank whole
        (vllm/v1/kv_cache_interface.py, ``FullAttentionSpec`` and ``MLAAttentionSpec``).
        """
        if self.kind == "mla":
            return self.latent
        if self.kind in {"state", "encoder"}:
            return 0
        heads = max(1, self.kv_heads // max(1, tensor_parallel))
        return heads * (self.head_dim + (self.value_dim or self.head_dim))


def attention_layers(
    text: ConfigView, *, dtype_bytes: int = 2
) -> tuple[tuple[AttentionLayers, ...], tuple[str, ...]]:
    """The layers that own a cache, those alike together, and notes on what is not known.

    ``dtype_bytes`` is the width of the served dtype: states are kept in it where the model does not ask for
    another (vllm/model_executor/layers/mamba/mamba_utils.py, 0.32).
    """
    mixers, notes = layer_mixers(text)
    found: dict[AttentionLayers, list[int]] = {}
    owners = len(mixers) - text.count("num_kv_shared_layers")
    for index, kinds in enumerate(mixers):
        for kind in kinds:
            if index >= owners > 0 and kind in {"full", "sliding"}:
                continue
            layer = _one_layer(text, kind, index, dtype_bytes)
            if layer is not None:
                found.setdefault(layer, []).append(index)
    if text.flag("is_encoder_decoder") and text.model_type in _WITH_CROSS:
        heads = _whole_at(text, 0, *_KV_HEADS) or _whole_at(text, 0, *_HEADS) or 0
        cross = AttentionLayers("cross", 0, heads, head_dimension(text, 0) or 0)
        found[cross] = list(range(len(mixers)))
    layers = tuple(
        replace(layer, count=len(indices), layers=tuple(indices))
        for layer, indices in found.items()
    )
    missing = [
        layer for layer in layers if layer.kind in {"full", "sliding"} and not layer.kv_heads
    ]
    if missing:
        notes = (*notes, "the number or the size of the K/V heads is unknown")
    return layers, notes


def head_dimension(text: ConfigView, index: int = 0) -> int | None:
    """Elements of one attention head of the layer ``index``."""
    kind = text.model_type
    if kind in _MLA_AS_HEADS:
        return (text.count("qk_nope_head_dim") + text.count("qk_rope_head_dim")) or None
    if kind == "zamba2":
        hidden, heads = text.whole("hidden_size"), text.whole("num_attention_heads")
        return text.whole("attention_head_dim") or (
            2 * hidden // heads if hidden and heads else None
        )
    stated = _whole_at(text, index, "head_dim", "kv_channels", "attention_head_size", "d_kv")
    if stated:
        return stated
    hidden = text.whole("hidden_size", "n_embd", "d_model", "n_embed")
    heads = _whole_at(text, index, *_HEADS)
    return hidden // heads if hidden and heads else None


def kv_head_count(text: ConfigView, index: int = 0) -> int | None:
    """K/V heads of the layer ``index`` (vllm/transformers_utils/model_arch_config_convertor.py)."""
    kind = text.model_type
    heads = _whole_at(text, index, *_HEADS)
    if kind in _MLA_AS_HEADS:
        return heads
    if kind in {"falcon", "RefinedWeb", "RefinedWebModel"}:
        if not text.flag("new_decoder_architecture") and text.flag("multi_query", otherwise=True):
            return 1
        if not text.flag("new_decoder_architecture"):
            return heads
    if kind in {"gpt_bigcode"}:
        return 1 if text.flag("multi_query", otherwise=True) else heads
    if kind == "chatglm":
        return text.whole("multi_query_group_num") if text.flag("multi_query_attention") else heads
    attention = text.values.get("attn_config")
    if isinstance(attention, Mapping) and (found := positive(attention.get("kv_n_heads"))):
        return found
    blocks = text.items("block_configs")
    if blocks and heads and index < len(blocks) and isinstance(blocks[index], Mapping):
        own = blocks[index].get("attention")
        if isinstance(own, Mapping) and (group := positive(own.get("n_heads_in_group"))):
            return heads // group
    return _whole_at(text, index, *_KV_HEADS) or heads


def head_sizes(text: ConfigView, kind: str, index: int) -> tuple[int, int, int]:
    """K/V heads, elements of a head's K and of its V, of the layer ``index`` that attends as ``kind`` says."""
    heads, size = kv_head_count(text, index) or 0, head_dimension(text, index) or 0
    value = size
    if text.model_type.startswith("mimo_v2"):
        value = text.whole("v_head_dim") or size
        if kind == "sliding":
            heads = text.whole("swa_num_key_value_heads") or heads
            size = text.whole("swa_head_dim") or size
            value = text.whole("swa_v_head_dim") or value
    if kind == "full" and text.model_type.startswith("gemma4"):
        size = value = text.whole("global_head_dim") or 512
        if text.flag("attention_k_eq_v"):
            heads = text.whole("num_global_key_value_heads") or heads
    return heads, size, value


def _one_layer(text: ConfigView, kind: str, index: int, dtype_bytes: int) -> AttentionLayers | None:
    if kind == "mla":
        return AttentionLayers(
            "mla",
            0,
            latent=text.count("kv_lora_rank") + text.count("qk_rope_head_dim"),
            indexer=_indexer(text),
        )
    if kind == "encoder":
        return AttentionLayers("encoder", 0, kv_head_count(text) or 0, head_dimension(text) or 0)
    if kind in STATE_KINDS:
        return AttentionLayers("state", 0, state_bytes=state_bytes(text, kind, dtype_bytes) or 0)
    if kind not in {"full", "sliding", "chunked", "cross"}:
        return None
    heads, size, value = head_sizes(text, kind, index)
    window = None
    if kind == "sliding":
        window = text.whole("sliding_window", "sliding_window_size")
        if window and text.model_type in {"cohere2", "cohere2_moe"}:
            # vLLM adds the token itself (vllm/model_executor/models/commandr.py, 0.32).
            window += 1
    if kind == "chunked":
        window = text.whole("attention_chunk_size")
    kept: AttentionKind = kind  # type: ignore[assignment]
    return AttentionLayers(kept, 0, heads, size, 0 if value == size else value, window)


def _indexer(text: ConfigView) -> int:
    """Bytes a token of the indexer's keys: FP8, with one 32-bit scale every 128.

    vllm/model_executor/models/deepseek_v2.py, DeepseekV32IndexerCache.
    """
    if text.whole("index_topk") is None:
        return 0
    size = text.whole("index_head_dim") or 128
    return size + size // 128 * 4


def _whole_at(text: ConfigView, index: int, *names: str) -> int | None:
    """A number that may be given for each layer."""
    for name in names:
        value = text.values.get(name)
        if isinstance(value, list) and value:
            return positive(value[min(index, len(value) - 1)])
    return text.whole(*names)
