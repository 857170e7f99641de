"""Worker: store a model as bitsandbytes' NF4 (4 bit) or INT8 (8 bit), through transformers.

Job: a producer's (``quantizing.job``); ``bits`` 4 or 8. NF4 is doubly quantized (QLoRA, arXiv:2305.14314,
section 3): 4 bits a value, 8 bits a block of 64 and 32 bits 256 blocks. INT8 has a float32 scale a row
(LLM.int8, arXiv:2208.07339). No data is needed. The head stays in 16 bit.

Job besides: none. The rounding is done on the job's device, which holds the 16-bit model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import quantizing  # noqa: F401
import quantui_wire as wire
from quantizing import in_transformers, producing

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("bitsandbytes", "transformers", "torch", "safetensors", "accelerate")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the checkpoint; the result event says what was made."""
    return producing.produce(job, needs=NEEDS, make=make)


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's checkpoint in ``folder``."""
    if job.recipe.bits not in (4, 8):
        raise wire.WorkerError(
            "quantize.bits",
            f"bitsandbytes stores no {job.recipe.bits}-bit weights.",
            "It has NF4 (4 bit) and INT8 (8 bit).",
            "Choose 4 or 8 bits, or another method.",
            exit_code=2,
        )
    return in_transformers.make(
        job,
        folder,
        clock,
        producer="bitsandbytes",
        config=config,
        placed={"device_map": {"": job.device}},
    )


def config(job: Job, left: list[str]) -> in_transformers.Settings:
    """What transformers is asked for; ``left`` are the layers that stay in 16 bit."""
    import torch
    from transformers import BitsAndBytesConfig

    if job.recipe.bits == 4:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            # The dtype of the arithmetic, not of what is stored; float16 overflows in some models.
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=left,
        )
        call = "BitsAndBytesConfig(load_in_4bit, nf4, double quantization, compute bfloat16)"
        return in_transformers.Settings(
            settings, call, {"group_size": 64, "double_quantized": True}
        )
    settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
    return in_transformers.Settings(
        settings, "BitsAndBytesConfig(load_in_8bit)", {"group_size": -1}
    )


if __name__ == "__main__":
    wire.run(main)
