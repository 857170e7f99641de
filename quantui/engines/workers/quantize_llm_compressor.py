"""Worker: quantize a 16-bit model with llm-compressor, into compressed-tensors that vLLM reads.

Job: a producer's (``quantizing.job``). Methods: ``awq``, ``gptq``, ``w4a16``, ``w8a16``, ``fp8_dynamic``,
``fp8_block``, ``fp8_static``, ``int8_w8a8``, ``w4a8``, ``nvfp4``, ``mxfp4``, ``mxfp8``, ``rotations_w4a16``
and ``rotations_w8a8``; ``rounding`` (``gptq``, ``rtn``) is read for those that can be rounded either way.

FP8 whose activations are scaled as they come is made shard by shard, and the model is never loaded.
Everything else loads it into RAM; on a card llm-compressor brings one layer at a time there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import llm_compressor_recipes  # noqa: F401
import quantizing  # noqa: F401
import quantui_wire as wire
from llm_compressor_recipes import made_in_shards
from quantizing import producing

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("llmcompressor", "compressed_tensors", "transformers", "torch", "safetensors")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the checkpoint; the result event says what was made."""
    device = str(job.get("device") or "cpu")
    result = producing.produce({**job, "device": only_device(device)}, needs=NEEDS, make=make)
    return {**result, "device": device}


def only_device(device: str) -> str:
    """Let the libraries see ``device`` alone; its name among what they see.

    llm-compressor takes the first accelerator it finds, whatever it is asked. Works before torch is loaded.
    """
    if not device.startswith("cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return device
    number = int(device.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number].strip()
    elif number:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)
    return "cuda:0"


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's checkpoint in ``folder``."""
    if job.recipe.method in made_in_shards.METHODS:
        return made_in_shards.make(job, folder, clock)
    from llm_compressor_recipes import made_in_memory

    return made_in_memory.make(job, folder, clock)


if __name__ == "__main__":
    wire.run(main)
