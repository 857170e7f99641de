"""What GPTQModel takes in memory, and whether to compute in float32."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llm_compressor_recipes import precision
from peft_merging import base
from quantizing import models

if TYPE_CHECKING:
    from quantizing.job import Job
    from streaming_merge.checkpoint import Checkpoint

COPIES = 3
"""Of what goes into a block of all calibration tokens: the inputs, the outputs, and those in between."""


def needed_bytes(source: Checkpoint, tokens: int, width: int) -> int:
    """Bytes beside the weights, with values of ``width`` bytes and ``tokens`` calibration tokens.

    The Hessians of the widest layers are float32 squares of their inputs; each is copied to be inverted
    (GPTQ, https://arxiv.org/abs/2210.17323, section 3.3).
    """
    inner = source.config.get("text_config")
    text = inner if isinstance(inner, dict) else source.config
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    middle = int(text.get("intermediate_size") or 4 * hidden)
    return COPIES * (tokens * hidden * width + 4 * max(hidden, middle) ** 2)


def computes_wide(job: Job, source: Checkpoint, tokens: int) -> bool:
    """Whether to compute in float32: a CPU that is slow in the model's dtype, and memory enough for it.

    Raises:
        WorkerError: ``quantize.not-enough-memory``: it fits in no way.
    """
    names = {"BF16": "bfloat16", "F16": "float16"}
    found = {tensor.dtype for tensor in source.tensors.values()}
    slow = any(precision.slow_on_cpu(names[one]) for one in found & set(names))
    elements = sum(tensor.rows * tensor.columns for tensor in source.tensors.values())
    if not job.on_gpu and slow:
        wide = 4 * elements + source.bytes + needed_bytes(source, tokens, 4)
        if wide + base.LIBRARIES <= models.free_ram(job.memory_limit_bytes):
            return True
    here = dataclasses.replace(job, device="cpu")
    more = needed_bytes(source, tokens, 4 if "F32" in found else 2)
    # What is quantized stands beside the weights until these are let go of.
    ram = source.bytes * 3 // 2 + (0 if job.on_gpu else more)
    models.check_memory(here, ram, "GPTQModel")
    if job.on_gpu:
        models.check_memory(job, more, "GPTQModel's work on a block")
    return False
