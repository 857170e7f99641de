"""Methods that transformers itself carries out while it loads: torchao's and bitsandbytes'."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peft_merging import side_files
from streaming_merge import checkpoint

from quantizing import linear_layers, models, reference
from quantizing.producing import Made

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from quantizing.job import Job
    from quantizing.producing import Clock


@dataclass(frozen=True)
class Settings:
    """``config``: transformers' quantization config. ``call``: it in short. ``recipe``: what of it the
    recipe tells.
    """

    config: Any
    call: str
    recipe: dict[str, Any] = field(default_factory=dict)


def make(
    job: Job,
    folder: Path,
    clock: Clock,
    *,
    producer: str,
    config: Callable[[Job, list[str]], Settings],
    placed: Mapping[str, Any] | None = None,
) -> Made:
    """Quantize the job's model into ``folder``: load it, compare, load it once more quantized, save.

    ``config`` gives the settings from the job and the names of the layers that stay in 16 bit. ``placed``
    goes to the loading of the quantized model. The 16-bit model is gone before the second loading, so
    that memory holds one of them.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``quantize.nothing-left``,
            ``quantize.reads-model-wrongly`` and what loading raises.
    """
    source = checkpoint.read_checkpoint(job.model)
    with clock.phase("load"):
        model = models.load_model(job)
        linear_layers.refuse_unquantizable(model, producer)
        names = list(linear_layers.quantizable(model))
        left = linear_layers.left(job.recipe.ignore, names, producer)
    with clock.phase("compare"):
        compared = reference.compare(job, model)
    del model
    _free(job)
    settings = config(job, left)
    with clock.phase("calibrate"):
        model = models.load_model(job, quantization_config=settings.config, **(placed or {}))
    with clock.phase("save"), models.saving(folder, source.bytes // 2):
        save(model, job.model, folder)
    return Made(
        f"from_pretrained(quantization_config={settings.call}), save_pretrained()",
        reference=compared,
        recipe={"ignore": left or list(job.recipe.ignore), **settings.recipe},
    )


def save(model: Any, source: Path, folder: Path) -> None:  # noqa: ANN401 - transformers has no stubs
    """Write the quantized weights and config, and beside them all else that the source has.

    The generation config is the source's file, as it is: transformers refuses to write some that it reads.
    """
    import transformers

    if hasattr(model, "generation_config"):
        model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(folder, max_shard_size="5GB")
    side_files.copy_side_files(source, source, folder, "base")


def _free(job: Job) -> None:
    gc.collect()
    if job.on_gpu:
        import torch

        torch.cuda.empty_cache()
