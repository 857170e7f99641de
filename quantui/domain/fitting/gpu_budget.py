"""What vLLM takes of a GPU besides the model: the CUDA context, communication, graphs; and how much it may take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quantui.domain.units import GIB

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.fit_facts import Device
    from quantui.domain.fitting.vllm_versions import VllmBehaviour

MIB = 1024**2

LARGE_CARD_BYTES = 70 * GIB
HUGE_CARD_BYTES = 160 * GIB
"""Where vLLM's defaults step up (vllm/engine/arg_utils.py, get_batch_defaults)."""
SMALL_CARD_SEQS = 256
SMALL_CARD_TOKENS = 2048
CPU_SEQS = 128
CPU_TOKENS = 2048
"""Of the API server, times the number of workers (arg_utils.py, get_batch_defaults)."""
LONG_CONTEXT = 32768
"""Above it V0 computes a prompt in chunks, where model and options let it."""
_MULTIMODAL_TOKENS = 5120
"""Least batch of a multimodal model in V0 (vllm/config.py, _MULTIMODAL_MODEL_MAX_NUM_BATCHED_TOKENS, 0.6.4)."""

OTHER_BASE_GIB, OTHER_PER_GIB = 0.03, 0.0015
"""Workspaces and libraries on one GPU: a base, and a part for each GiB of the card (more multiprocessors)."""
TENSOR_PARALLEL_BASE_GIB, TENSOR_PARALLEL_PER_GIB = 0.15, 0.003
"""What NCCL and the custom all-reduce add."""

Band = tuple[int, int, int]
"""Expected, low, high, in bytes."""


def chunks_long_prompts(shape: ModelShape, rules: VllmBehaviour, *, lora: bool) -> bool:
    """Whether V0 computes prompts above 32768 tokens in chunks (vllm/engine/arg_utils.py, 0.6.4 to 0.8.5)."""
    latent = any(each.kind == "mla" for each in shape.attention)
    return not (
        lora
        or shape.has_vision
        or (latent and rules.version >= (0, 8))
        or any(each.kind == "sliding" for each in shape.attention)
    )


def batch_defaults(
    rules: VllmBehaviour,
    device: Device,
    *,
    context: int,
    world: int,
    chunks: bool = True,
    vision: bool = False,
) -> tuple[int, int]:
    """Sequences and tokens of one batch when nobody says otherwise; ``chunks``: of :func:`chunks_long_prompts`."""
    if device.on_cpu:
        return CPU_SEQS * world, CPU_TOKENS * world
    if rules.engine == "v0":
        # Without chunked prefill, a prompt is one batch.
        if chunks and rules.long_context_tokens and context > LONG_CONTEXT:
            return SMALL_CARD_SEQS, rules.long_context_tokens
        return SMALL_CARD_SEQS, max(context, _MULTIMODAL_TOKENS if vision else SMALL_CARD_TOKENS)
    total = device.total_bytes or 0
    if rules.huge_card_tokens and total >= HUGE_CARD_BYTES:
        return rules.large_card_seqs, rules.huge_card_tokens
    a100 = "a100" in device.name.lower() and not rules.a100_is_large
    if total >= LARGE_CARD_BYTES and not a100:
        return rules.large_card_seqs, rules.large_card_tokens
    return SMALL_CARD_SEQS, SMALL_CARD_TOKENS


def cuda_context(device: Device) -> Band:
    """The CUDA context, which exists before vLLM looks at what is free.

    A driver's context with lazily loaded kernels; larger on larger cards. An allowance: nothing was measured here.
    """
    if (device.total_bytes or 0) >= 32 * GIB:
        return 400 * MIB, 150 * MIB, 600 * MIB
    return 250 * MIB, 80 * MIB, 450 * MIB


def other_memory(rules: VllmBehaviour, device: Device, *, tensor_parallel: int) -> Band:
    """What the profile run finds beyond PyTorch's own: workspaces, libraries, NCCL's buffers.

    Measured, one GPU: 0.03 to 0.05 GiB on a T4, 0.08 on 24 GB cards, 0.13 to 0.16 on an H100 (vLLM 0.7 to 0.11);
    0.2 to 0.55 with tensor parallel. Up to 0.6.4 the CUDA context is part of it (0.35 on an RTX 3090), up to 0.6.2
    also what PyTorch's allocator keeps of the profile run (0.9 of a 7B Llama on an A100, 0.2.5).
    """
    total = (device.total_bytes or 0) / GIB
    expected = int((OTHER_BASE_GIB + OTHER_PER_GIB * total) * GIB)
    if rules.version < (0, 6, 3):
        expected += 768 * MIB * (2 if tensor_parallel > 1 else 1)
        return expected, expected // 2, expected + (6 if tensor_parallel > 1 else 2) * GIB
    if rules.version < (0, 6, 5):
        expected += 256 * MIB
        return expected, expected - 200 * MIB, expected + 1024 * MIB
    high = 200 * MIB
    if (device.compute_capability or (0, 0)) >= (10, 0):
        # FlashInfer is the default for attention there (VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE, 394 MiB).
        high += 394 * MIB
    if device.unified_memory:
        # What the host takes meanwhile is taken from the same memory.
        high += GIB
    if tensor_parallel > 1:
        expected += int((TENSOR_PARALLEL_BASE_GIB + TENSOR_PARALLEL_PER_GIB * total) * GIB)
        return expected, expected // 2, expected + high + 312 * MIB
    return expected, expected // 3, expected + high


def graph_memory(shape: ModelShape, rules: VllmBehaviour, *, sequences: int, lora: bool) -> Band:
    """CUDA graphs: one for each batch size and layer, 0.3 MiB each in what was measured.

    Measured: 0.2 to 0.4 MiB, up to 0.8 where bitsandbytes unpacks weights in V0. Batch sizes: 1, 2, 4, then every
    8th up to 256, every 16th above (vllm/config/vllm.py, _set_cudagraph_sizes). With adapters each is captured twice.
    """
    v1 = rules.engine == "v1"
    most = min(2 * sequences, 512) if v1 else min(sequences, 256)
    sizes = 3 + min(most, 255) // 8 + max(0, (most - 256) // 16 + 1 if most >= 256 else 0)
    pieces = sizes * (shape.layers or 32) * (2 if lora and v1 else 1) * MIB
    return int(0.3 * pieces), int(0.1 * pieces), int((0.6 if v1 else 1.0) * pieces)


def lowered_utilization(device: Device, wanted: float) -> float:
    """``wanted``, or what is surely free at start, cut to hundredths; at least 0.01."""
    if device.total_bytes is None or device.free_bytes is None or not device.total_bytes:
        return wanted
    free = device.free_bytes - cuda_context(device)[2]
    most = math.floor(free / device.total_bytes * 100) / 100
    return wanted if most >= wanted else max(0.01, most)


def requested_bytes(device: Device, utilization: float) -> int:
    """What vLLM sets out to take (vllm/v1/worker/utils.py, request_memory)."""
    return math.ceil((device.total_bytes or 0) * utilization)
