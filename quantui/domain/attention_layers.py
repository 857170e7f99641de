"""The layers of a model that own a cache in vLLM, by kind of attention: what a KV cache is counted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AttentionKind = Literal["full", "sliding", "chunked", "mla", "state", "cross", "encoder"]
"""Which cache vLLM gives a layer (vllm/v1/kv_cache_interface.py, 0.32): ``state`` is a Mamba, gated delta net,
short convolution or linear attention state of fixed size a request; ``encoder`` keeps nothing."""


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

    @property
    def first_layer(self) -> int:
        """The lowest index, 0 when the indices are not known."""
        return self.layers[0] if self.layers else 0

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
