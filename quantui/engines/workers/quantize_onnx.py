"""Worker: make an ONNX model with weights of 4 or 8 bit that onnxruntime-genai generates with on the CPU.

Job: a producer's (``quantizing.job``); no calibration data. 4 bit: onnxruntime-genai's model builder in INT4
(blocks of ``group_size`` inputs, rounded to nearest). 8 bit: its float32 graph, then ONNX Runtime's
``quantize_dynamic``, which also rounds what a layer takes in to 8 bit while it computes.

The head and the embedding are quantized too: what is left out is float32 here, and would be most of the
file. The folder holds ``model.onnx``, ``model.onnx.data``, ``genai_config.json``, the model's own
``config.json`` and its tokenizer.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from typing import TYPE_CHECKING, Any

# Found before quantui_wire takes this folder off sys.path.
import onnx_graphs  # noqa: F401
import quantizing  # noqa: F401
import quantui_wire as wire
from onnx_graphs import architectures
from quantizing import producing

if TYPE_CHECKING:
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock, Made

NEEDS = ("onnxruntime_genai", "onnxruntime", "onnx", "onnx_ir", "torch", "transformers")

BLOCKS = (16, 32, 64, 128, 256)
"""Group sizes of the builder's INT4 (onnxruntime-genai 0.18, models/builder.py, block_size)."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the ONNX model; the result event says what was made."""
    # To the log: where events go to stdout, what the builder prints there would tear them.
    with contextlib.redirect_stdout(sys.stderr):
        return producing.produce(job, needs=NEEDS, make=make)


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Make the job's ONNX model in ``folder``.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``quantize.bad-recipe``,
            ``quantize.group-size``, ``quantize.not-enough-memory``, ``quantize.reads-model-wrongly``,
            ``quantize.producer-failed`` and what loading raises.
    """
    from onnx_graphs import building, census
    from peft_merging import side_files
    from quantizing.producing import Made

    refuse(job)
    architectures.refuse_unknown(job)
    building.rehearse(job, folder)
    refuse_too_large(job)
    compared = compare(job, clock)
    with clock.phase("export"):
        # First, so that what the builder writes for its own runtime stays.
        side_files.copy_side_files(job.model, job.model, folder, "base")
        shutil.copyfile(job.model / "config.json", folder / "config.json")
        if job.recipe.bits == 4:
            options = int4_options(job)
            made = {
                "group_size": int(options["block_size"]),
                "symmetric": job.recipe.symmetric is not False,
            }
            building.build(job, folder, "int4", options)
            said = ", ".join(f"{name}={value}" for name, value in options.items())
            call = f"builder.create_model(int4, cpu, {said})"
        else:
            scratch = folder / "float32"
            made = {"group_size": -1, "symmetric": True}
            # Apart, so that the table of the embedding is quantized by its own scale.
            building.build(job, scratch, "fp32", {"shared_embeddings": "false"})
    if job.recipe.bits == 8:
        with clock.phase("quantize"):
            call = quantize_dynamic(scratch, folder)
    return Made(
        f"onnxruntime_genai.models.{call}",
        reference=compared,
        recipe={"ignore": [], **made},
        tensors=census.census(folder / "model.onnx"),
    )


def refuse(job: Job) -> None:
    """Refuse what the two libraries cannot do.

    Raises:
        WorkerError: ``quantize.bad-recipe``, ``quantize.group-size`` (exit code 2).
    """
    recipe = job.recipe
    what = fix = ""
    if recipe.bits not in (4, 8):
        what = f"ONNX Runtime makes no weights of {recipe.bits} bit here."
        fix = "Choose 4 or 8 bits."
    elif job.on_gpu:
        what = "The ONNX model is made and run on the CPU."
        fix = "Choose the CPU as the device."
    elif others := [name for name in recipe.ignore if name != "lm_head"]:
        what = f"{others[0]} cannot be left out of an ONNX model."
        fix = "Leave out --ignore: the builder joins layers and names them otherwise."
    if what:
        raise wire.WorkerError("quantize.bad-recipe", what, fix=fix, exit_code=2)
    if recipe.bits == 4 and recipe.group_size not in (None, *BLOCKS):
        raise wire.WorkerError(
            "quantize.group-size",
            f"ONNX Runtime has no groups of {recipe.group_size}.",
            "Its kernels read blocks of a power of two.",
            f"Choose {', '.join(map(str, BLOCKS))}.",
            exit_code=2,
        )


def refuse_too_large(job: Job) -> None:
    """Refuse a model that does not fit into RAM as the builder holds it.

    Raises:
        WorkerError: ``quantize.not-enough-memory``.
    """
    from quantizing import models
    from streaming_merge.checkpoint import read_checkpoint

    tensors = read_checkpoint(job.model).tensors.values()
    elements = sum(tensor.rows * tensor.columns for tensor in tensors)
    needed = FLOAT_COPIES[job.recipe.bits] * 4 * elements
    models.check_memory(job, needed, "Building the ONNX model")


FLOAT_COPIES = {4: 2, 8: 4}
"""Copies of all weights in float32 that are in RAM at once, by the bits made. Measured with 132 million
parameters: 1.07 and 2.05 GB beside the libraries, where a copy has 0.53."""


def compare(job: Job, clock: Clock) -> dict[str, Any] | None:
    """Whether this transformers, with which the builder loads the model, reads it as it is meant."""
    if job.reference is None:
        return None
    from quantizing import models, reference

    with clock.phase("load"):
        model = models.load_model(job)
    with clock.phase("compare"):
        return reference.compare(job, model)


def int4_options(job: Job) -> dict[str, str]:
    """The builder's options for the job's recipe."""
    recipe = job.recipe
    options = {"block_size": str(recipe.group_size or 32)}
    if recipe.symmetric is False:
        # With zero points the builder (0.18) shares an embedding that no runtime loads.
        options |= {"is_symmetric": "false", "shared_embeddings": "false"}
    return options


def quantize_dynamic(scratch: Path, folder: Path) -> str:
    """Quantize the float32 graph in ``scratch`` into ``folder`` and remove it; the call in short.

    A scale a row, and 7 of the 8 bits: with all 8, sums overflow on CPUs without VNNI
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    """
    from onnxruntime import quantization

    quantization.quantize_dynamic(
        scratch / "model.onnx",
        folder / "model.onnx",
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        use_external_data_format=True,
    )
    for file in scratch.iterdir():
        if not file.name.startswith("model.onnx") and file.is_file():
            shutil.move(file, folder / file.name)
    shutil.rmtree(scratch)
    return (
        "builder.create_model(fp32, cpu, shared_embeddings=false); quantize_dynamic(QInt8, "
        "per_channel, reduce_range)"
    )


if __name__ == "__main__":
    wire.run(main)
