"""FP8 shard by shard: the model is never loaded, no data is needed, memory stays that of one shard."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from peft_merging import side_files
from quantizing import groups, models, producing, progress
from quantizing.producing import Made
from quantui_wire import WorkerError
from streaming_merge import checkpoint

from llm_compressor_recipes import leaving, schemes

if TYPE_CHECKING:
    from quantizing.job import Job
    from quantizing.producing import Clock

METHODS = frozenset({"fp8_dynamic", "fp8_block"})

SHARE = 2.5
"""Memory for one byte of a shard: read, rounded, written (llm-compressor's own fallback,
compressed-tensors 0.19, entrypoints/convert/memory.py, _FALLBACK_MULTIPLIER)."""


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Quantize the job's checkpoint into ``folder``, tensor by tensor.

    Raises:
        WorkerError: ``quantize.bad-pattern``, ``quantize.group-size``, ``quantize.unsupported-architecture``,
            ``quantize.not-enough-memory``, ``quantize.producer-failed``.
    """
    leaving.refuse_bad_patterns(job.recipe.ignore)
    groups.check_groups(
        job.model, schemes.group_size(job.recipe), (*job.recipe.ignore, *leaving.ALWAYS)
    )
    with clock.phase("load"):
        source = checkpoint.read_checkpoint(job.model)
        left = choose(source, job)
        largest = max(shard.size for shard in source.shards)
        needed = int(SHARE * largest)
        models.check_memory(dataclasses.replace(job, device="cpu"), needed, "Quantizing a shard")
        if job.on_gpu:
            models.check_memory(job, needed, "Quantizing a shard")
        from llmcompressor import model_free_ptq
    name = schemes.preset(job.recipe, with_data=False)
    with (
        clock.phase("calibrate"),
        tempfile.TemporaryDirectory() as place,
        progress.follow_tqdm("shards"),
    ):
        weights_alone(source, Path(place))
        try:
            model_free_ptq(
                place,
                folder,
                scheme=name,
                ignore=left,
                device=job.device,
            )
        except Exception as error:
            if producing.is_about_resources(error):
                raise
            raise _failed(job, error) from error
    with clock.phase("save"):
        side_files.copy_side_files(source.folder, source.folder, folder, "base")
        leaving.name_in_config(folder)
    return Made(f"model_free_ptq(scheme={name}, ignore={len(left)} layers)")


def choose(source: checkpoint.Checkpoint, job: Job) -> list[str]:
    """Modules of the checkpoint that stay as they are.

    All that is no matrix of a linear layer does: embeddings, norms by other names, convolutions. The
    library takes whatever is named ``weight`` for a linear layer, but for names that end in ``norm``.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``, ``quantize.nothing-left``.
    """
    architecture = str((source.config.get("architectures") or ["This model"])[0])
    if source.config.get("model_type") == "gpt2":
        leaving.refuse_nothing([], [], architecture)
    weights = {
        name.removesuffix(".weight"): tensor
        for name, tensor in source.tensors.items()
        if name.endswith(".weight")
    }
    other = [
        name
        for name, tensor in weights.items()
        if len(tensor.shape) != 2 or groups.is_embedding(name)
    ]
    linear = [name for name in weights if name not in set(other)]
    other = [name for name in other if not name.endswith("norm")]
    left = leaving.resolve(job.recipe.ignore, linear)
    leaving.refuse_nothing(left, linear, architecture)
    return [*left, *other]


def weights_alone(source: checkpoint.Checkpoint, place: Path) -> None:
    """Links to config, shards and index: the library copies every other file of a folder, pickles too."""
    names = ["config.json", *(shard.path.name for shard in source.shards)]
    if source.index is not None:
        names.append(checkpoint.INDEX)
    for name in names:
        (place / name).symlink_to((source.folder / name).resolve())


def _failed(job: Job, error: Exception) -> WorkerError:
    said = (str(error).strip().splitlines() or [""])[0]
    return WorkerError(
        "quantize.producer-failed",
        f"llm-compressor could not make {job.recipe.method} of {job.model.name}.",
        f"{type(error).__name__}: {said}"[:400],
        "Choose another method, or leave the layer it names in 16 bit with --ignore.",
    )
