"""Whether a GPU is worth it: a low-rank product is little work, and every byte would travel twice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import quantui_wire as wire

if TYPE_CHECKING:
    from streaming_merge.operations import Output, Plan
    from streaming_merge.sources import Sources

SECONDS_PER_ELEMENT = 1.9e-9
"""One core, to read, widen, add and round an element (measured on a Xeon at 2.5 GHz: 0.9 GB/s of
bfloat16 at rank 16, of which 0.3e-9 s are the product)."""

SECONDS_PER_RANK = 1.9e-11
"""One core, for each of an element's rank (measured there: 131,072 elements at rank 16 in 40 us)."""

DISK_BYTES_PER_SECOND = 1.5e9
"""What a fast disk writes (measured there); with a slower one a GPU is worth less still."""

START_SECONDS = 4.0
"""Until CUDA has been loaded and has a context: assumed, on no card measured yet."""

_LEAST_FREE = 1 << 30


def usable(device: str, plan: Plan, sources: Sources, *, fallback: bool) -> str:
    """``device`` where it is there and pays, else ``cpu``; with ``fallback`` false it has to be there.

    Raises:
        WorkerError: ``merge.no-gpu``.
    """
    if fallback and seconds_saved(plan, sources, len(os.sched_getaffinity(0))) < 0:
        wire.notice("The CPU merges: it is done before a GPU could begin.")
        return "cpu"
    problem = _problem(device)
    if problem is None:
        return device
    if not fallback:
        raise no_gpu(device, problem)
    wire.notice(f"The CPU merges: {problem}", level="warning")
    return "cpu"


def refuse_absent(device: str) -> None:
    """Refuse a merge that must be on ``device`` and cannot, before anything of it is touched.

    Raises:
        WorkerError: ``merge.no-gpu``.
    """
    if device != "cpu" and (problem := _problem(device)) is not None:
        raise no_gpu(device, problem)


def no_gpu(device: str, problem: str) -> wire.WorkerError:
    """The error of a merge that must be on ``device``."""
    return wire.WorkerError(
        "merge.no-gpu",
        f"The merge cannot use {device}.",
        problem,
        "Merge on the CPU: it needs no more memory.",
        exit_code=3,
    )


def seconds_saved(plan: Plan, sources: Sources, cores: int) -> float:
    """What a GPU saves: the cores' arithmetic beyond the time the disk takes anyway, less its start."""
    work = sum(
        _seconds(output, sources)
        for shard in plan.shards
        for output in shard.outputs
        if output.merged
    )
    return work / cores - plan.bytes / DISK_BYTES_PER_SECOND - START_SECONDS


def _seconds(output: Output, sources: Sources) -> float:
    elements = output.source.rows * output.source.columns
    passes = 2.0 if output.direction is not None else 1.0
    seconds = elements * SECONDS_PER_ELEMENT * passes
    for product in output.products:
        stored = sources.adapters[product.left.adapter].tensors[product.left.tensor].shape
        rank = min(stored) / product.left.experts
        seconds += (product.stop - product.start) * output.source.columns * rank * SECONDS_PER_RANK
    return seconds


def _problem(device: str) -> str | None:
    """Why ``device`` cannot be used; None: it can."""
    import torch

    try:
        if not torch.cuda.is_available():
            return "torch sees no GPU."
        free, _ = torch.cuda.mem_get_info(device)
        if free < _LEAST_FREE:
            return f"{device} has {free / 1e9:.1f} GB free."
        # Ten bits of mantissa would be fewer than the weights themselves have.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.empty(1, device=device)
    except RuntimeError as error:
        return (str(error).splitlines() or ["CUDA failed."])[0]
    return None
