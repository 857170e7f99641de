"""What vLLM does with memory, by version: the typed view of ``data/vllm_versions.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from quantui.domain.versions import CURRENT_VLLM, version_numbers

SamplerKind = Literal["sort", "fused", "counting"]
"""How the dummy sampler of the profile run works: see :mod:`quantui.domain.fitting.activations`."""


@dataclass(frozen=True)
class VllmBehaviour:
    """One version's rules. Sizes are tokens or sequences unless said otherwise."""

    version: tuple[int, ...]
    engine: Literal["v0", "v1"]
    utilization: float
    """Default of --gpu-memory-utilization."""
    checks_free_memory: bool
    """Whether vLLM refuses to start when less than utilization x total is free."""
    graphs_in_budget: bool
    """Whether CUDA graphs are subtracted before the KV cache is sized; else they come on top of the budget."""
    sampler: SamplerKind
    sampler_moe: SamplerKind
    long_context_tokens: int
    """V0: tokens a batch once the context is above 32768; 0: the whole context."""
    large_card_seqs: int
    large_card_tokens: int
    """Defaults from 70 GiB on (below: 256 sequences, 2048 tokens)."""
    huge_card_tokens: int
    """Default from 160 GiB on; 0: as for large cards."""
    a100_is_large: bool
    hybrid_groups: bool
    """Whether sliding windows and states are given less than full attention; else every layer is counted full."""
    group_slack: float
    """How many times the layers of the rarest kind the most frequent may have for padding to it."""
    steps_in_flight: int
    """Batches whose tokens a sliding window still holds."""
    tokens_by_concurrency: bool
    """Whether the cache's size in tokens is told as concurrency x max_model_len, else from the block count."""
    state_blocks: int
    """Blocks of a request's state: 2 where prefixes of hybrid models are cached by default."""
    mamba2_blocks: int
    """One more for a Mamba 2 state: the checkpoint of the prompt."""
    kv_dtype_of_checkpoint: bool
    """Whether a quantized checkpoint's word on its KV cache is followed."""
    null_block: bool
    """Whether one block is kept out of the check for one request."""
    mla_workspace_rows: int
    """Most rows of up-projected MLA context that the profile run allocates."""
    sources: tuple[str, ...]


@cache
def behaviour(
    version: str = CURRENT_VLLM, compute_capability: tuple[int, int] = (8, 0), stages: int = 1
) -> VllmBehaviour:
    """The rules of ``version``; V0 where it falls back to that: old cards, pipeline ``stages`` without Ray."""
    numbers = version_numbers(version)
    values: dict[str, Any] = {"v0_below": "0.0", "a100_is_large": True}
    sources = []
    for change in _changes():
        if version_numbers(change["version"]) <= numbers:
            values |= change
            sources.append(f"{change['version']}: {change['source']}")
    values.pop("source")
    values["version"] = numbers
    v0_below = version_numbers(values.pop("v0_below"))
    if compute_capability < v0_below or (stages > 1 and values.pop("v0_stages", False)):
        old = behaviour("0.7", compute_capability)
        values |= {
            "engine": "v0",
            "long_context_tokens": old.long_context_tokens,
            "large_card_seqs": old.large_card_seqs,
            "hybrid_groups": False,
            "mla_workspace_rows": 0,
        }
    values.pop("v0_stages", None)
    values.setdefault("sampler_moe", values["sampler"])
    return VllmBehaviour(sources=tuple(sources), **values)


@cache
def _changes() -> tuple[dict[str, Any], ...]:
    text = (
        resources.files("quantui.data").joinpath("vllm_versions.toml").read_text(encoding="utf-8")
    )
    return tuple(tomllib.loads(text)["change"])
