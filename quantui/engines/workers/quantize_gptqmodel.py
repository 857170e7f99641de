"""Worker: quantize a 16-bit model with GPTQModel into the ``gptq`` format, 2, 3, 4 or 8 bit.

Job: a producer's (``quantizing.job``). The model lies in RAM; on a card GPTQModel brings one block at a time
there.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import gptqmodel_rounding  # noqa: F401
import quantizing  # noqa: F401
import quantui_wire as wire
from gptqmodel_rounding import environment
from quantizing import producing
from quantizing.devices import only_device

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("gptqmodel", "torch", "transformers", "safetensors")

BITS = (2, 3, 4, 8)


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the checkpoint; the result event says what was made."""
    environment.prepare()
    device = str(job.get("device") or "cpu")
    # To the log: where events go to stdout, what GPTQModel draws there would tear them.
    with contextlib.redirect_stdout(sys.stderr):
        result = producing.produce({**job, "device": only_device(device)}, needs=NEEDS, make=make)
    return {**result, "device": device}


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's checkpoint in ``folder``.

    Raises:
        WorkerError: ``quantize.bad-recipe``, ``quantize.group-size``,
            ``quantize.unsupported-architecture``, ``quantize.not-enough-memory``,
            ``quantize.reads-model-wrongly``, ``quantize.producer-failed``, ``calibration.*`` and what
            loading raises.
    """
    from quantizing import calibration, groups, models, reference
    from quantizing.producing import Made
    from streaming_merge import checkpoint

    recipe = job.recipe
    if recipe.bits not in BITS:
        raise wire.WorkerError(
            "quantize.bad-recipe",
            f"The gptq format has no weights of {recipe.bits} bit.",
            fix=f"Choose {', '.join(map(str, BITS))} bits.",
            exit_code=2,
        )
    source = checkpoint.read_checkpoint(job.model)
    models.model_class(source.config, trust_remote_code=job.trust_remote_code)
    groups.check_groups(job.model, recipe.group_size or 128, recipe.ignore)
    from gptqmodel_rounding import needs, rounding

    with clock.phase("load"):
        samples = calibration.samples(job, models.load_tokenizer(job))
        wide = needs.computes_wide(job, source, int(samples.report["tokens"]))
        wrapped = rounding.load(job, source)
    with clock.phase("compare"):
        compared = reference.compare(job, wrapped.model)
    with clock.phase("calibrate"):
        rounding.quantize(wrapped, source, samples.ids, wide=wide)
    with clock.phase("save"):
        rounding.save(wrapped, source, folder)
    asked = {name: value for name, value in rounding.settings(job).items() if value is not None}
    dtype = "float32" if wide else str(wrapped.model.dtype).removeprefix("torch.")
    return Made(
        f"GPTQModel.load(QuantizeConfig({asked})).quantize({len(samples.ids)} samples)",
        calibration=samples.report,
        reference=compared,
        recipe={"group_size": asked["group_size"], "symmetric": asked["sym"], "computed_in": dtype},
    )


if __name__ == "__main__":
    wire.run(main)
