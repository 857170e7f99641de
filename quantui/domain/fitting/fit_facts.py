"""What a fit is asked of, and what it answers: devices, the request, figures with their bands, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantui.domain.fitting.calibration import Calibration
from quantui.domain.versions import CURRENT_VLLM

__all__ = [
    "Calibration",
    "Change",
    "Device",
    "Figure",
    "Fit",
    "FitRequest",
    "LoraSlots",
    "Verdict",
]

Verdict = Literal["fits", "tight", "does not fit", "unsupported"]
"""fits: even at the pessimistic ends of all figures it starts and holds what was asked. does not fit: not even at the
optimistic ends. tight: between the two. unsupported: it could not run in any amount of memory, or cannot be counted."""


@dataclass(frozen=True)
class Device:
    """What is there for one rank: a GPU, a MIG slice, or the machine's RAM. Sizes in bytes; None: unknown.

    ``total_bytes`` is what CUDA sees (NVML's total without what driver and firmware reserve);
    ``free_bytes`` is what nobody holds before vLLM starts, ``others_bytes`` what other processes hold.
    """

    on_cpu: bool
    total_bytes: int | None
    free_bytes: int | None
    name: str
    compute_capability: tuple[int, int] | None = None
    others_bytes: int | None = None
    unified_memory: bool = False
    index: int | None = None


@dataclass(frozen=True)
class LoraSlots:
    """Adapters held beside the model: vLLM's --max-loras and --max-lora-rank."""

    max_loras: int = 1
    rank: int = 16


@dataclass(frozen=True)
class FitRequest:
    """What is to be served. None: vLLM's default, or for ``context`` what the memory allows.

    ``context``: tokens of one request, prompt and answer; ``users``: requests of that length at once.
    ``kv_cache_bytes``: vLLM's --kv-cache-memory-bytes, of each rank.
    """

    context: int | None = None
    users: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    utilization: float | None = None
    kv_dtype: str = "auto"
    dtype: str = "auto"
    eager: bool = False
    block_size: int | None = None
    lora_slots: LoraSlots | None = None
    vllm_version: str = CURRENT_VLLM
    kv_cache_bytes: int | None = None

    @property
    def world(self) -> int:
        """GPUs (or CPU workers) of the server."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True)
class Figure:
    """Bytes on one GPU, expected to lie between ``low`` and ``high``."""

    bytes: int
    low: int
    high: int
    formula: str
    source: str


@dataclass(frozen=True)
class Change:
    """One thing to alter so that it fits: an option of `quantui fit` with its value, and what that means."""

    option: str
    value: str
    text: str


@dataclass(frozen=True)
class Fit:
    """The answer, for the GPU of the group with the least room.

    ``kv_cache`` is the room for the cache, ``kv_cache_tokens`` what vLLM will call its size. ``max_context``: the
    longest context for the asked users; ``users``: how many requests of the asked context (without one: of
    ``max_context``) the cache holds; both from the expected figures, ``safe_context`` from the pessimistic ones.
    None: unknown. ``utilization`` None: on the CPU. ``missing_bytes``: what is lacking for the asked, 0 if nothing.
    """

    weights: Figure
    kv_cache: Figure
    transient: Figure
    graphs: Figure
    context: Figure
    lora: Figure
    others: Figure
    kv_bytes_per_token: int
    kv_cache_tokens: int | None
    max_context: int | None
    safe_context: int | None
    users: int | None
    verdict: Verdict
    reasons: tuple[str, ...]
    utilization: float | None
    max_model_len: int | None
    """What to give vLLM as --max-model-len: the asked context, or ``safe_context``."""
    max_num_seqs: int
    max_num_batched_tokens: int
    budget_bytes: int | None
    """What vLLM may take of that GPU: utilization x total; of the RAM, what is planned with."""
    missing_bytes: int
    device: str
    graphs_in_budget: bool = True
    """Whether this vLLM takes the graphs out of the budget; else they come on top."""
    smallest_change: Change | None = None
    asked_bytes: int | None = None
    """What the asked requests take of the cache, all at once; None: not computed."""

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name."""
        names = ("weights", "kv_cache", "transient", "graphs", "context", "lora", "others")
        return {name: getattr(self, name) for name in names}
