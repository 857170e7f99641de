"""GPTQModel's three calls: load, quantize, save."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llm_compressor_recipes import precision
from peft_merging import side_files
from peft_merging.loading import reporting, resident_growth
from quantizing import models, producing
from quantui_wire import WorkerError

from gptqmodel_rounding.layers import follow_logbar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quantizing.job import Job
    from streaming_merge.checkpoint import Checkpoint

SHORTEST = 2
"""Tokens of a sample that GPTQModel would leave out; what is too short is left out before."""


def settings(job: Job) -> dict[str, Any]:
    """GPTQModel's settings for the job's recipe.

    ``desc_act`` is off: vLLM 0.32 refuses it with groups, and its gain is had without it by
    ``act_group_aware``, which GPTQModel turns on in its place.
    """
    recipe = job.recipe
    return {
        "bits": recipe.bits,
        "group_size": recipe.group_size or 128,
        "sym": recipe.symmetric is not False,
        "desc_act": False,
        "dynamic": left_out(recipe.ignore) or None,
    }


def left_out(ignore: Sequence[str]) -> dict[str, dict[str, Any]]:
    """GPTQModel's rules (``-:PATTERN``) for modules that stay in 16 bit; the head always does."""
    patterns = [
        entry.removeprefix("re:")
        if entry.startswith("re:")
        else rf"(.*\.)?{re.escape(entry)}(\.|$)"
        for entry in ignore
        if entry != "lm_head"
    ]
    return {f"-:{pattern}": {} for pattern in patterns}


def load(job: Job, source: Checkpoint) -> Any:  # noqa: ANN401 - GPTQModel has no stubs
    """The model in RAM, as GPTQModel reads it.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``.
    """
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(**settings(job), offload_to_disk=False, device=job.device)
    try:
        with reporting(source.bytes, resident_growth()):
            return GPTQModel.load(str(job.model), config, trust_remote_code=job.trust_remote_code)
    # The library raises what it likes, and so does a model's own code.
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise failed(source, error, "quantize.unsupported-architecture", exit_code=3) from error


def quantize(
    wrapped: Any,  # noqa: ANN401
    source: Checkpoint,
    ids: Sequence[Sequence[int]],
    *,
    wide: bool,
) -> None:
    """Quantize in place, in float32 where ``wide``; what is not quantized has its own dtype again after.

    Raises:
        WorkerError: ``quantize.producer-failed``.
    """
    samples = [{"input_ids": list(row), "attention_mask": [1] * len(row)} for row in ids]
    was = precision.widen(wrapped.model) if wide else {}
    try:
        with follow_logbar():
            wrapped.quantize(samples, batch_size=1, calibration_data_min_length=SHORTEST)
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise failed(source, error, "quantize.producer-failed", exit_code=4) from error
    precision.narrow(wrapped.model, was)


def failed(source: Checkpoint, error: Exception, code: str, *, exit_code: int) -> WorkerError:
    """The error of a library that gave up."""
    from gptqmodel import __version__

    architecture = (source.config.get("architectures") or ["this model"])[0]
    said = (str(error).strip().splitlines() or [""])[0]
    return WorkerError(
        code,
        f"GPTQModel {__version__} does not quantize {architecture}.",
        f"{type(error).__name__}: {said}"[:400],
        "Choose llm-compressor as the producer. The log has the whole story.",
        exit_code=exit_code,
    )


def save(wrapped: Any, source: Checkpoint, folder: Path) -> None:  # noqa: ANN401
    """Write the packed weights, the source's config with how they are packed, and all else it has."""
    with models.saving(folder, source.bytes):
        wrapped.save(str(folder))
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    packed = {"quantization_config": written["quantization_config"]}
    side_files.write_config(source.config, packed, folder)
    (folder / "quant_log.csv").unlink(missing_ok=True)
    side_files.copy_side_files(source.folder, source.folder, folder, "base")
