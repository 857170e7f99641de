"""Worker: quantize a 16-bit model with AutoAWQ into the ``awq`` format (GEMM, 4 bit with zero points).

Job: a producer's (``quantizing.job``). AutoAWQ 0.2.9 is the last: its author has ended it, and names
llm-compressor as what follows. It is here for those who need its format.

The model lies in RAM; on a card AutoAWQ brings one block at a time there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import autoawq_search  # noqa: F401
import quantizing  # noqa: F401
import quantui_wire as wire
from quantizing import producing
from quantizing.devices import only_device

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("awq", "torch", "transformers", "safetensors")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the checkpoint; the result event says what was made."""
    device = str(job.get("device") or "cpu")
    result = producing.produce({**job, "device": only_device(device)}, needs=NEEDS, make=make)
    return {**result, "device": device}


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's checkpoint in ``folder``.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``quantize.bad-recipe``,
            ``quantize.group-size``, ``quantize.not-enough-memory``, ``quantize.reads-model-wrongly``,
            ``quantize.producer-failed``, ``calibration.*`` and what loading raises.
    """
    from quantizing import calibration, groups, models, reference
    from quantizing.producing import Made
    from streaming_merge import checkpoint

    source = checkpoint.read_checkpoint(job.model)
    groups.check_groups(job.model, job.recipe.group_size or 128, job.recipe.ignore)
    from autoawq_search import memory, refusals, searching

    refusals.refuse(job, source.config)
    with clock.phase("load"):
        tokenizer = models.load_tokenizer(job)
        samples = calibration.samples(job, tokenizer)
        wide = memory.computes_wide(job, source, int(samples.report["tokens"]))
        # AutoAWQ takes its blocks from RAM.
        model = models.load_model(dataclasses.replace(job, device="cpu"))
    with clock.phase("compare"):
        compared = reference.compare(job, model)
    with clock.phase("calibrate"), searching.computing_in_float32(model, wanted=wide):
        made, call = searching.search(job, model, tokenizer, samples.ids)
    with clock.phase("save"):
        searching.save(made, source, folder)
    return Made(
        call,
        calibration=samples.report,
        reference=compared,
        recipe={
            "group_size": job.recipe.group_size or 128,
            "symmetric": False,
            "computed_in": "float32" if wide else str(model.dtype).removeprefix("torch."),
        },
    )


if __name__ == "__main__":
    wire.run(main)
