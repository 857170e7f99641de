"""The KV cache as vLLM plans it: blocks of one pool, groups of layers, what a request holds, what bytes make of it.

Follows vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py (0.32) step by step: a block holds the pages
of one group's layers; every group takes its own blocks from the same pool; layers of different kinds are brought to
one page size, and the groups to one number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from quantui.domain.layer_partition import layers_of_stage

if TYPE_CHECKING:
    from quantui.domain.attention_layers import AttentionLayers
    from quantui.domain.vllm_versions import VllmBehaviour

GPU_BLOCK_TOKENS = 16
"""vLLM's default block (vllm/config/cache.py, DEFAULT_BLOCK_SIZE)."""
CPU_BLOCK_TOKENS = 128
"""Block of the CPU backend (vllm/platforms/cpu.py, check_and_update_config, 0.32)."""
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


@dataclass(frozen=True)
class KvPlan:
    """One rank's pool. ``block_bytes`` is one block over the layers that share it; 0: the model keeps no cache."""

    groups: tuple[CacheGroup, ...]
    block_bytes: int
    block_tokens: int
    """The smallest block, in tokens."""
    bytes_per_token: int
    """Of a token in the middle of a short request, over all layers of the rank; states left out."""
    tokens_by_concurrency: bool
    null_block: bool

    def blocks_of(self, context: int, in_flight: int) -> int:
        """Blocks of one request of ``context`` tokens; ``in_flight``: tokens of the batches not settled."""
        if len(self.groups) == 1 and self.groups[0].kind == "full":
            return -(-context // self.block_tokens)
        return sum(group.groups * group.blocks_of(context, in_flight) for group in self.groups)

    def bytes_for(self, context: int, users: int, in_flight: int) -> int:
        """The pool that holds ``users`` requests of ``context`` tokens each and passes vLLM's own check."""
        blocks = self.blocks_of(context, in_flight) * users + (1 if self.null_block else 0)
        return blocks * self.block_bytes

    def pool_blocks(self, pool: float) -> int:
        """Blocks in a pool of so many bytes."""
        return int(pool // self.block_bytes) if self.block_bytes and pool > 0 else 0

    def tokens(self, pool: float, context: int, in_flight: int) -> int:
        """``GPU KV cache size`` as the version's vLLM tells it for a pool of so many bytes."""
        blocks = self.pool_blocks(pool)
        if not self.tokens_by_concurrency:
            return (
                blocks // sum(group.groups for group in self.groups) * self.block_tokens
                if blocks
                else 0
            )
        return int(blocks / max(1, self.blocks_of(context, in_flight)) * context)

    def users(self, pool: float, context: int, in_flight: int) -> int:
        """Requests of ``context`` tokens that the pool holds at once."""
        if not self.block_bytes:
            return 1_000_000
        blocks = self.pool_blocks(pool) - (1 if self.null_block else 0)
        return max(0, blocks) // max(1, self.blocks_of(context, in_flight))

    def longest(self, pool: float, users: int, in_flight: int, limit: int) -> int:
        """The longest context, at most ``limit`` tokens, of which the pool holds ``users`` requests; 0: none."""
        if not self.block_bytes:
            return limit
        blocks = self.pool_blocks(pool) - (1 if self.null_block else 0)
        share = max(0, blocks) // max(1, users)
        if len(self.groups) == 1 and self.groups[0].kind == "full":
            return min(limit, share * self.block_tokens)
        if self.blocks_of(limit, in_flight) <= share:
            return limit
        low, high = 0, limit
        while high - low > 1:
            middle = (low + high) // 2
            if self.blocks_of(middle, in_flight) <= share:
                low = middle
            else:
                high = middle
        return low


def element_bytes(kv_dtype: str, dtype: str | None) -> float:
    """Bytes of one cached value; ``auto`` is the model's dtype (float32 is served in 16 bit, 2 is meant then)."""
    if kv_dtype in ("auto", ""):
        return 4.0 if dtype == "float32" else 2.0
    return _ELEMENT_BYTES.get(kv_dtype, 2.0)


def default_block_tokens(
    attention: tuple[AttentionLayers, ...], rules: VllmBehaviour, *, on_cpu: bool
) -> int:
    """The block vLLM takes when none is asked for: 16; 64 for MLA on V1; the CPU's 128 (MLA: 16)."""
    mla = any(layers.kind == "mla" for layers in attention)
    if on_cpu:
        return GPU_BLOCK_TOKENS if mla else CPU_BLOCK_TOKENS
    # vllm/v1/attention/backends/mla/flashmla.py: 64 tokens.
    return 64 if mla and rules.engine == "v1" else GPU_BLOCK_TOKENS


@lru_cache(maxsize=512)
def kv_plan(
    attention: tuple[AttentionLayers, ...],
    rules: VllmBehaviour,
    *,
    layers: int,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    kv_dtype: str = "auto",
    dtype: str | None = None,
    block_tokens: int = GPU_BLOCK_TOKENS,
) -> KvPlan:
    """The plan for one rank: with pipeline parallel, of the stage whose block is the largest."""
    width = element_bytes(kv_dtype, dtype)
    owned = [each for each in attention if each.kind != "encoder" and each.count]
    kinds = _local_as_full(owned, rules)
    if not kinds:
        return KvPlan((), 0, block_tokens, 0, rules.tokens_by_concurrency, rules.null_block)
    pages = [
        _page(each, kind, width, kv_dtype, tensor_parallel, block_tokens, rules)
        for each, kind in kinds
    ]
    per_token = sum(
        int(page.token_bytes * page.count) for page in pages if page.kind in ("full", "sliding")
    )
    states = [page for page in pages if page.kind == "state"]
    tokens_total = [page for page in pages if page.kind != "state"]
    if states and tokens_total:
        pages = _aligned_to_states(pages, block_tokens, mla=any(e.kind == "mla" for e in owned))
    if _uniform(pages):
        groups: tuple[CacheGroup, ...] = (pages[0].as_groups(1),)
        stage_bytes = [
            sum(_stage_count(page, 1, stage) * page.bytes for page in pages)
            for stage in _stages(layers, pipeline_parallel)
        ]
    else:
        pages = _merged(_one_page_size(pages))
        size = _group_size([page.count for page in pages], rules.group_slack)
        split = [(page, -(-page.count // size)) for page in pages]
        groups = tuple(page.as_groups(parts) for page, parts in split)
        stage_bytes = [
            max(_stage_count(page, parts, stage) * page.bytes for page, parts in split)
            for stage in _stages(layers, pipeline_parallel)
        ]
        if pipeline_parallel == 1:
            stage_bytes = [size * pages[0].bytes]
    smallest = min((group.block_tokens for group in groups if group.block_tokens), default=0)
    per_token = per_token if pipeline_parallel == 1 else -(-per_token // pipeline_parallel)
    return KvPlan(
        groups,
        max(stage_bytes),
        smallest or block_tokens,
        per_token,
        rules.tokens_by_concurrency and rules.engine == "v1",
        rules.null_block,
    )


@dataclass(frozen=True, slots=True)
class _Page:
    """Layers whose pages are alike: bytes of one layer's page in a block."""

    kind: GroupKind
    count: int
    token_bytes: float
    block_tokens: int
    bytes: int
    window: int
    layers: tuple[int, ...]

    def as_groups(self, parts: int) -> CacheGroup:
        tokens = 0 if self.kind == "state" else self.block_tokens
        return CacheGroup(self.kind, parts, tokens, self.window)


def _local_as_full(
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


def _page(
    each: AttentionLayers,
    kind: GroupKind,
    width: float,
    kv_dtype: str,
    tensor_parallel: int,
    block_tokens: int,
    rules: VllmBehaviour,
) -> _Page:
    window = (each.window or 0) if kind in ("sliding", "cross") else 0
    if kind == "state":
        state = -(-each.state_bytes // tensor_parallel)
        return _Page(kind, each.count, 0.0, block_tokens, state, 0, each.layers)
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
    return _Page(kind, each.count, per_token, block_tokens, page, window, each.layers)


def _aligned_to_states(pages: list[_Page], block_tokens: int, *, mla: bool) -> list[_Page]:
    """Attention blocks long enough to hold a state, states padded to them (_align_hybrid_block_size)."""
    state = max(page.bytes for page in pages if page.kind == "state")
    per_token = max(page.token_bytes for page in pages if page.kind != "state")
    step = max(block_tokens, MLA_ALIGNMENT_TOKENS) if mla else block_tokens
    tokens = int(step * -(-state // (step * per_token)))
    padded = int(tokens * per_token)
    return [
        _Page(page.kind, page.count, 0.0, tokens, padded, 0, page.layers)
        if page.kind == "state"
        else _Page(
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


def _uniform(pages: list[_Page]) -> bool:
    """Whether every request takes as many tokens' slots in all layers: one group then."""
    first = pages[0]
    return all((page.kind, page.window) == (first.kind, first.window) for page in pages)


def _one_page_size(pages: list[_Page]) -> list[_Page]:
    """Pages of one size: longer blocks where the size divides, padding where not (unify_kv_cache_spec_page_size)."""
    largest = max(page.bytes for page in pages)
    result = []
    for page in pages:
        tokens = page.block_tokens
        if page.kind != "state" and page.bytes and largest % page.bytes == 0:
            tokens *= largest // page.bytes
        result.append(
            _Page(
                page.kind, page.count, page.token_bytes, tokens, largest, page.window, page.layers
            )
        )
    return result


def _merged(pages: list[_Page]) -> list[_Page]:
    """Entries that one spec describes, together."""
    together: dict[tuple[object, ...], _Page] = {}
    for page in pages:
        key = (page.kind, page.block_tokens, page.bytes, page.window)
        other = together.get(key)
        together[key] = (
            page
            if other is None
            else _Page(
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


def _group_size(counts: list[int], slack: float) -> int:
    """Layers of each group: the rarest kind's number, or the largest where that pads little."""
    rarest, largest = min(counts), max(counts)
    return largest if largest < rarest * slack else rarest


def _stages(layers: int, stages: int) -> list[range | None]:
    """The layers of each pipeline stage; None: all of them."""
    if stages <= 1:
        return [None]
    return [layers_of_stage(layers, stage, stages) for stage in range(stages)]


def _stage_count(page: _Page, parts: int, stage: range | None) -> int:
    """Layers of the stage in the largest of ``parts`` groups."""
    if stage is None:
        count = page.count
    elif page.layers:
        count = sum(layer in stage for layer in page.layers)
    else:
        count = min(page.count, len(stage))
    return -(-count // parts)
