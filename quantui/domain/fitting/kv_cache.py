"""The KV cache as vLLM plans it: blocks of one pool, groups of layers, what a request holds, what bytes make of it.

Follows vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py (0.32) step by step: a block holds the pages
of one group's layers; every group takes its own blocks from the same pool; layers of different kinds are brought to
one page size, and the groups to one number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from quantui.domain.fitting.kv_pages import (
    CacheGroup,
    Page,
    aligned_to_states,
    element_bytes,
    kinds_of,
    merged,
    of_one_size,
    page_of,
)
from quantui.domain.weights.layer_partition import layers_of_stage

if TYPE_CHECKING:
    from quantui.domain.architecture.attention_layers import AttentionLayers
    from quantui.domain.fitting.vllm_versions import VllmBehaviour

GPU_BLOCK_TOKENS = 16
"""vLLM's default block (vllm/config/cache.py, DEFAULT_BLOCK_SIZE)."""
CPU_BLOCK_TOKENS = 128
"""Block of the CPU backend (vllm/platforms/cpu.py, check_and_update_config, 0.32)."""

_MAMBA2 = frozenset(
    {
        "bamba",
        "falcon_h1",
        "granitemoehybrid",
        "mamba2",
        "nemotron_h",
        "nemotron_h_puzzle",
        "zamba2",
    }
)
"""Models with vLLM's MambaMixer2."""


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


def default_block_tokens(
    attention: tuple[AttentionLayers, ...], rules: VllmBehaviour, *, on_cpu: bool
) -> int:
    """The block vLLM takes when none is asked for: 16; 64 for MLA on V1; the CPU's 128 (MLA: 16)."""
    mla = any(layers.kind == "mla" for layers in attention)
    if on_cpu:
        return GPU_BLOCK_TOKENS if mla else CPU_BLOCK_TOKENS
    # vllm/v1/attention/backends/mla/flashmla.py: 64 tokens.
    return 64 if mla and rules.engine == "v1" else GPU_BLOCK_TOKENS


def served_kv_dtype(
    asked: str, stored: str | None, attention: tuple[AttentionLayers, ...], rules: VllmBehaviour
) -> str:
    """The cache's dtype: what was ``asked`` for, else what the checkpoint asks for (``stored``), else ``auto``."""
    if asked == "auto" and stored and rules.kv_dtype_of_checkpoint:
        asked = stored
    if asked.startswith("fp8") and any(each.indexer for each in attention):
        # vllm/model_executor/layers/attention/mla_attention.py, _canonicalize_sparse_mla_kv_cache_dtype.
        return "fp8_ds_mla"
    return asked


def state_blocks(model_type: str | None, rules: VllmBehaviour) -> int:
    """Blocks that a request's state takes: more than one where prefixes are cached, one more for Mamba 2.

    vllm/v1/kv_cache_interface.py, MambaSpec.max_memory_usage_bytes; mamba_mixer2.py, num_prefill_checkpoint_blocks.
    """
    return rules.state_blocks + (rules.mamba2_blocks if model_type in _MAMBA2 else 0)


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
    state_blocks: int = 1,
) -> KvPlan:
    """The plan for one rank: with pipeline parallel, of the stage whose block is the largest.

    ``state_blocks``: of :func:`state_blocks`.
    """
    width = element_bytes(kv_dtype, dtype)
    owned = [each for each in attention if each.kind != "encoder" and each.count]
    kinds = kinds_of(owned, rules)
    if not kinds:
        return KvPlan((), 0, block_tokens, 0, rules.tokens_by_concurrency, rules.null_block)
    pages = [
        page_of(each, kind, width, kv_dtype, tensor_parallel, block_tokens, rules)
        for each, kind in kinds
    ]
    per_token = sum(
        int(page.token_bytes * page.count) for page in pages if page.kind in ("full", "sliding")
    )
    states = [page for page in pages if page.kind == "state"]
    tokens_total = [page for page in pages if page.kind != "state"]
    if states and tokens_total:
        pages = aligned_to_states(pages, block_tokens, mla=any(e.kind == "mla" for e in owned))
    if _uniform(pages):
        groups: tuple[CacheGroup, ...] = (pages[0].as_groups(1, state_blocks),)
        stage_bytes = [
            sum(_stage_count(page, 1, stage) * page.bytes for page in pages)
            for stage in _stages(layers, pipeline_parallel)
        ]
    else:
        pages = merged(of_one_size(pages))
        size = _group_size([page.count for page in pages], rules.group_slack)
        split = [(page, -(-page.count // size)) for page in pages]
        groups = tuple(page.as_groups(parts, state_blocks) for page, parts in split)
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


def _uniform(pages: list[Page]) -> bool:
    """Whether every request takes as many tokens' slots in all layers: one group then."""
    first = pages[0]
    return all((page.kind, page.window) == (first.kind, first.window) for page in pages)


def _group_size(counts: list[int], slack: float) -> int:
    """Layers of each group: the rarest kind's number, or the largest where that pads little."""
    rarest, largest = min(counts), max(counts)
    return largest if largest < rarest * slack else rarest


def _stages(layers: int, stages: int) -> list[range | None]:
    """The layers of each pipeline stage; None: all of them."""
    if stages <= 1:
        return [None]
    return [layers_of_stage(layers, stage, stages) for stage in range(stages)]


def _stage_count(page: Page, parts: int, stage: range | None) -> int:
    """Layers of the stage in the largest of ``parts`` groups."""
    if stage is None:
        count = page.count
    elif page.layers:
        count = sum(layer in stage for layer in page.layers)
    else:
        count = min(page.count, len(stage))
    return -(-count // parts)
