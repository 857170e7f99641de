"""What AutoAWQ's search takes in memory."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llm_compressor_recipes import precision
from peft_merging import base
from quantizing import models

if TYPE_CHECKING:
    from quantizing.job import Job
    from streaming_merge.checkpoint import Checkpoint

CLIP_ROWS, CLIP_TOKENS = 256, 512
"""Outputs and tokens that the search for the best clipping multiplies at once
(awq/quantize/quantizer.py, _compute_best_clip)."""
CLIP_COPIES = 3
"""Tensors of that size at once: the product, its sum's operand, and what is freed late."""


def needed_bytes(source: Checkpoint, tokens: int, width: int) -> int:
    """Bytes beside the weights, with values of ``width`` bytes and ``tokens`` calibration tokens.

    The inputs of every linear layer of one block are kept for all tokens, and what goes into the block and
    comes out of it; added is one product of the search for the best clipping.
    """
    config = source.config
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    hidden = int(text.get("hidden_size") or 0)
    middle = int(text.get("intermediate_size") or 4 * hidden)
    kept = tokens * (8 * hidden + 3 * middle) * width
    return kept + CLIP_COPIES * CLIP_ROWS * CLIP_TOKENS * max(hidden, middle) * width


def computes_wide(job: Job, source: Checkpoint, tokens: int) -> bool:
    """Whether to compute in float32: a CPU that is slow in the model's dtype, and memory enough for it.

    Raises:
        WorkerError: ``quantize.not-enough-memory``: it fits in no way.
    """
    names = {"BF16": "bfloat16", "F16": "float16"}
    found = {tensor.dtype for tensor in source.tensors.values()}
    slow = any(precision.slow_on_cpu(names[one]) for one in found & set(names))
    elements = sum(tensor.rows * tensor.columns for tensor in source.tensors.values())
    free = models.free_ram(job.memory_limit_bytes)
    if not job.on_gpu and slow:
        wide = 4 * elements + needed_bytes(source, tokens, 4)
        if wide + base.LIBRARIES <= free:
            return True
    here = dataclasses.replace(job, device="cpu")
    more = needed_bytes(source, tokens, 4 if "F32" in found else 2)
    models.check_memory(here, source.bytes + (0 if job.on_gpu else more), "AutoAWQ's search")
    if job.on_gpu:
        models.check_memory(job, more, "AutoAWQ's search in one block")
    return False
