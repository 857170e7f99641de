"""Worker: quantize weights with torchao's HQQ, stored so that vLLM with torchao reads it.

Job: a producer's (``quantizing.job``); ``bits`` 4 or 8, ``group_size`` -1 for a whole row. The scales are
found by half-quadratic quantization (HQQ, https://mobiusml.github.io/hqq_blog/); values are symmetric. No
data is needed. The file is safetensors.

torchao 0.18 keeps such values one a byte, of whatever width (IntxPackingFormat.UNPACKED_TO_INT8): 4 bit
takes as much disk and memory as 8 bit. Its packed layouts are opaque: made for one CPU, and not stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import quantizing  # noqa: F401
import quantui_wire as wire
from quantizing import groups, in_transformers, linear_layers, producing

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("torchao", "transformers", "torch", "safetensors", "accelerate")

GROUP = 128


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the checkpoint; the result event says what was made."""
    return producing.produce(job, needs=NEEDS, make=make)


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's checkpoint in ``folder``."""
    recipe = job.recipe
    if recipe.bits not in (4, 8):
        raise unsupported(f"{recipe.bits}-bit weights", "HQQ is asked for at 4 or 8 bits here.")
    if recipe.symmetric is False:
        raise unsupported("asymmetric weights", "Its HQQ finds scales alone (hqq_scale_only).")
    groups.check_groups(job.model, group_size(job), (*recipe.ignore, *linear_layers.NEVER))
    return in_transformers.make(job, folder, clock, producer="torchao", config=config)


def group_size(job: Job) -> int:
    """Input features that share a scale; -1: all of them."""
    return GROUP if job.recipe.group_size is None else job.recipe.group_size


def unsupported(what: str, why: str) -> wire.WorkerError:
    """The error for an option that torchao lacks."""
    return wire.WorkerError(
        "quantize.option",
        f"torchao makes no {what} here.",
        why,
        "Leave the option out, or choose another method (awq, gptq, autoround).",
        exit_code=2,
    )


def config(job: Job, left: list[str]) -> in_transformers.Settings:
    """What transformers is asked for; ``left`` are the layers that stay in 16 bit."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup
    from transformers import TorchAoConfig

    if job.recipe.bits == 4:
        wire.notice(
            "torchao stores 4-bit values one a byte: the result is no smaller than with 8 bits, on disk "
            "and in memory."
        )
    group = group_size(job)
    width = f"int{job.recipe.bits}"
    settings = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, width),
        granularity=PerAxis(0) if group == -1 else PerGroup(group),
        intx_choose_qparams_algorithm="hqq_scale_only",
    )
    over = "PerAxis(0)" if group == -1 else f"PerGroup({group})"
    return in_transformers.Settings(
        TorchAoConfig(settings, modules_to_not_convert=left),
        f"TorchAoConfig(IntxWeightOnlyConfig(torch.{width}, {over}, hqq_scale_only))",
        {"group_size": group, "symmetric": True, "stored_bits": 8},
    )


if __name__ == "__main__":
    wire.run(main)
