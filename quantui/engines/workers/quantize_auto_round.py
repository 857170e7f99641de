"""Worker: quantize a 16-bit model with AutoRound, which learns how to round block by block.

Job: a producer's (``quantizing.job``). ``format``: ``auto_round`` (default), ``auto_gptq``, ``auto_awq`` or
``llm_compressor``; ``bits`` 2, 3, 4 or 8; ``mixed_bits`` 6 or 8: the layers that suffer most from 4 bit get
so many. ``iterations``: steps a block, AutoRound's 200 where it is not given.

SignRound (arXiv:2309.05516) moves each rounding up or down by the sign of its gradient, so that a whole
block answers as before: block-wise reconstruction in BRECQ's line, and AdaRound's heir.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import auto_round_recipes  # noqa: F401
import quantui_wire as wire
from quantizing import producing

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("auto_round", "transformers", "torch", "safetensors")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the checkpoint; the result event says what was made."""
    if not str(job.get("device") or "cpu").startswith("cuda"):
        # It takes a card where it sees one, whatever it is asked. Read when torch is loaded.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return producing.produce(job, needs=NEEDS, make=make)


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's checkpoint in ``folder``."""
    from auto_round_recipes import making

    return making.make(job, folder, clock)


if __name__ == "__main__":
    wire.run(main)
