"""Pages of the KV cache: what a block holds of one layer, and how those of different kinds are brought to one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from quantui.domain.architecture.attention_layers import AttentionLayers
    from quantui.domain.fitting.vllm_versions import VllmBehaviour

MLA_ALIGNMENT_TOKENS = 128
"""Hybrids of MLA and states: the block is a multiple of it (vllm/platforms/interface.py, _align_hybrid_block_size)."""

_ELEMENT_BYTES = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "half": 2.0,
    "float32": 4.0,
    "float": 4.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_inc": 1.0,
    "fp8_ds_mla": 1.0,
    "int8": 1.0,
    "int8_per_token_head": 1.0,
    "fp8_per_token_head": 1.0,
    "int4_per_token_head": 0.5,
    # 4 bit and an 8-bit scale for 16 values (vllm/utils/torch_utils.py, nvfp4_kv_cache_full_dim).
    "nvfp4": 0.5625,
}
_DS_MLA_BYTES = 656
"""One token of ``fp8_ds_mla``: 512 fp8 values, 4 fp32 scales, 64 bf16 (vllm/v1/kv_cache_interface.py)."""
_V0_LATENT_ALIGNMENT = 256
"""Bytes that a token's latent is rounded up to in V0 (vllm/envs.py, VLLM_MLA_CUDA_MEM_ALIGN_KV_CACHE, 0.7.3)."""

GroupKind = Literal["full", "sliding", "state", "cross"]


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """``groups`` equal groups of layers of one kind. ``block_tokens``: tokens of one block, 0 for states."""

    kind: GroupKind
    groups: int
    block_tokens: int
    window: int = 0
    blocks: int = 1
    """``state``: blocks a request holds, whatever its length."""

    def blocks_of(self, context: int, in_flight: int) -> int:
        """Blocks that one request of ``context`` tokens holds in one of the groups."""
        if self.kind == "state":
            return self.blocks
        tokens = context
        if self.kind == "cross":
            tokens = self.window or context
        elif self.kind == "sliding":
            # One more block: the window may start in the middle of one (SlidingWindowSpec).
            tokens = min(self.window - 1 + in_flight, context)
            return -(-tokens // self.block_tokens) + 1
        return -(-tokens // self.block_tokens)


def element_bytes(kv_dtype: str, dtype: str | None) -> float:
    """Bytes of one cached value; ``auto`` is the model's dtype (float32 is served in 16 bit, 2 is meant then)."""
    if kv_dtype in ("auto", ""):
        return 4.0 if dtype == "float32" else 2.0
    return _ELEMENT_BYTES.get(kv_dtype, 2.0)


@dataclass(frozen=True, slots=True)
class Page:
    """Layers whose pages are alike: bytes of one layer's page in a block."""

    kind: GroupKind
    count: int
    token_bytes: float
    block_tokens: int
    bytes: int
    window: int
    layers: tuple[int, ...]

    def as_groups(self, parts: int, state_blocks: int) -> CacheGroup:
        """The layers as ``parts`` groups."""
        tokens = 0 if self.kind == "state" else self.block_tokens
        return CacheGroup(self.kind, parts, tokens, self.window, state_blocks)


def kinds_of(
    owned: list[AttentionLayers], rules: VllmBehaviour
) -> list[tuple[AttentionLayers, GroupKind]]:
    """Each kind as vLLM allocates it: chunked attention, and sliding windows of old versions, like full."""
    chunked = any(each.kind == "chunked" for each in owned)
    full = any(each.kind in ("full", "mla") for each in owned)
    local_is_full = chunked or (not rules.hybrid_groups and full) or rules.engine == "v0"
    result: list[tuple[AttentionLayers, GroupKind]] = []
    for each in owned:
        if each.kind == "sliding":
            result.append((each, "full" if local_is_full or not each.window else "sliding"))
        elif each.kind == "state":
            result.append((each, "state"))
        elif each.kind == "cross":
            result.append((each, "cross"))
        else:
            result.append((each, "full"))
    return result


def page_of(
    each: AttentionLayers,
    kind: GroupKind,
    width: float,
    kv_dtype: str,
    tensor_parallel: int,
    block_tokens: int,
    rules: VllmBehaviour,
) -> Page:
    """The page of one layer on one tensor parallel rank."""
    window = (each.window or 0) if kind in ("sliding", "cross") else 0
    if kind == "state":
        state = -(-each.state_bytes // tensor_parallel)
        return Page(kind, each.count, 0.0, block_tokens, state, 0, each.layers)
    if each.kind == "mla" and kv_dtype == "fp8_ds_mla":
        per_token = float(_DS_MLA_BYTES)
    else:
        per_token = each.elements_per_token(tensor_parallel) * width
    if each.kind == "mla" and rules.engine == "v0":
        per_token = float(-(-int(per_token) // _V0_LATENT_ALIGNMENT) * _V0_LATENT_ALIGNMENT)
    if kv_dtype.endswith("_per_token_head") and each.kind != "mla":
        # A float32 scale for K and one for V of each head (vllm/v1/kv_cache_interface.py, KVQuantMode).
        per_token += 8 * max(1, each.kv_heads // tensor_parallel)
    per_token += each.indexer
    page = int(per_token * block_tokens)
    return Page(kind, each.count, per_token, block_tokens, page, window, each.layers)


def aligned_to_states(pages: list[Page], block_tokens: int, *, mla: bool) -> list[Page]:
    """Attention blocks long enough to hold a state, states padded to them (_align_hybrid_block_size)."""
    state = max(page.bytes for page in pages if page.kind == "state")
    per_token = max(page.token_bytes for page in pages if page.kind != "state")
    step = max(block_tokens, MLA_ALIGNMENT_TOKENS) if mla else block_tokens
    tokens = int(step * -(-state // (step * per_token)))
    padded = int(tokens * per_token)
    return [
        Page(page.kind, page.count, 0.0, tokens, padded, 0, page.layers)
        if page.kind == "state"
        else Page(
            page.kind,
            page.count,
            page.token_bytes,
            tokens,
            int(page.token_bytes * tokens),
            page.window,
            page.layers,
        )
        for page in pages
    ]


def of_one_size(pages: list[Page]) -> list[Page]:
    """Pages of one size: longer blocks where the size divides, padding where not (unify_kv_cache_spec_page_size)."""
    largest = max(page.bytes for page in pages)
    result = []
    for page in pages:
        tokens = page.block_tokens
        if page.kind != "state" and page.bytes and largest % page.bytes == 0:
            tokens *= largest // page.bytes
        result.append(
            Page(page.kind, page.count, page.token_bytes, tokens, largest, page.window, page.layers)
        )
    return result


def merged(pages: list[Page]) -> list[Page]:
    """Entries that one spec describes, together."""
    together: dict[tuple[object, ...], Page] = {}
    for page in pages:
        key = (page.kind, page.block_tokens, page.bytes, page.window)
        other = together.get(key)
        together[key] = (
            page
            if other is None
            else Page(
                page.kind,
                page.count + other.count,
                page.token_bytes,
                page.block_tokens,
                page.bytes,
                page.window,
                (*other.layers, *page.layers),
            )
        )
    return list(together.values())
