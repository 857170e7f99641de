"""Load, compare, learn the rounding, and put what was written in its place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from peft_merging import side_files
from quantizing import (
    calibration,
    groups,
    linear_layers,
    models,
    producing,
    progress,
    reference,
)
from quantizing.producing import Made
from quantui_wire import WorkerError, notice
from streaming_merge import checkpoint

from auto_round_recipes import asking, rows, widths, written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from quantizing.job import Job
    from quantizing.producing import Clock
    from streaming_merge.checkpoint import Checkpoint

DEFAULT_ITERATIONS = 200
"""Steps a block, and with them a learning rate of 1/200 (auto-round 0.15.1,
algorithms/quantization/sign_round)."""

SEED = 42
"""AutoRound's own."""


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Quantize the job's model into ``folder``.

    Raises:
        WorkerError: ``quantize.option``, ``quantize.group-size``, ``quantize.unsupported-architecture``,
            ``quantize.not-enough-memory``, ``quantize.reads-model-wrongly``,
            ``quantize.producer-failed``, ``calibration.*`` and what loading raises.
    """
    recipe = job.recipe
    style = asking.format_of(recipe)
    group = asking.group_size(recipe)
    groups.check_groups(job.model, group, (*recipe.ignore, *linear_layers.NEVER))
    with clock.phase("load"):
        source = checkpoint.read_checkpoint(job.model)
        refuse_multimodal(source)
        # It brings one block at a time to the card.
        model = models.load_model(dataclasses.replace(job, device="cpu"))
        tokenizer = models.load_tokenizer(job)
        layers = linear_layers.quantizable(model)
        left = [
            *linear_layers.left(recipe.ignore, layers, "AutoRound"),
            *odd_sizes(layers),
        ]
    with clock.phase("compare"):
        compared = reference.compare(job, model)
    samples = calibration.samples(job, tokenizer)
    equal = rows.equal(samples.ids)
    batch = rows.batch_size(job.device, len(equal[0]))
    check_room(job, source, sum(map(len, equal)))
    with clock.phase("calibrate"):
        bits: dict[str, int] = {}
        facts: dict[str, Any] = {}
        if recipe.mixed_bits:
            chosen = widths.choose(model, layers, set(left), recipe, equal[:batch])
            bits = dict.fromkeys(chosen.names, recipe.mixed_bits)
            facts = chosen.facts()
        configured: dict[str, dict[str, Any]] = {name: {"bits": 16} for name in left}
        configured |= {name: {"bits": width} for name, width in bits.items()}
        call = learn(job, model, tokenizer, equal, batch, configured, folder, style)
    with clock.phase("save"):
        written.move_up(folder)
        written.restore_dtypes(folder, source)
        side_files.copy_side_files(source.folder, source.folder, folder, "base")
    return Made(
        call,
        calibration={**samples.report, "rows": len(equal), "row_tokens": len(equal[0])},
        reference=compared,
        recipe={
            "format": style,
            "group_size": group,
            "symmetric": recipe.symmetric is not False,
            "ignore": left or list(recipe.ignore),
            "iterations": recipe.iterations or DEFAULT_ITERATIONS,
            "batch_size": batch,
            **facts,
        },
    )


def refuse_multimodal(source: Checkpoint) -> None:
    """Refuse a model with a vision or audio part: AutoRound wants pictures to calibrate it.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``.
    """
    parts = [name for name in source.config if name in ("vision_config", "audio_config")]
    if parts:
        architecture = (source.config.get("architectures") or ["this model"])[0]
        raise WorkerError(
            "quantize.unsupported-architecture",
            f"AutoRound cannot quantize {architecture} with texts alone.",
            f"It has a {parts[0].partition('_')[0]} part, which AutoRound calibrates with its own data.",
            "Choose llm-compressor (awq, gptq, w4a16), which leaves that part in 16 bit.",
            exit_code=3,
        )


def odd_sizes(layers: Mapping[str, Any]) -> list[str]:
    """Layers with a side that 32 does not divide: its formats cannot pack them.

    auto-round 0.15.1, export/formats/base.py, _check_divisible_by_32, leaves them in 16 bit too.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``: all are.
    """
    inner = {
        name: layer
        for name, layer in layers.items()
        if name.rpartition(".")[2] not in linear_layers.HEADS
    }
    odd = [name for name, one in inner.items() if any(side % 32 for side in one.weight.shape)]
    if odd and len(odd) == len(inner):
        raise WorkerError(
            "quantize.unsupported-architecture",
            "AutoRound could quantize no layer of this model.",
            f"32 does not divide their sizes: {odd[0]} is {tuple(inner[odd[0]].weight.shape)}.",
            "Choose a method that takes any size (bitsandbytes).",
            exit_code=3,
        )
    if odd:
        notice(
            f"{len(odd)} layers stay in 16 bit, {odd[0]} for one: 32 does not divide their sizes.",
            level="warning",
        )
    return odd


def check_room(job: Job, source: Checkpoint, tokens: int) -> None:
    """Refuse work that does not fit beside the loaded model.

    Bytes: the weights once more (in float32 on a CPU without bfloat16), 3 x tokens x hidden size x 4 for
    what goes into a block and comes out of it, rounded and not, and 16 a value of the largest block.

    Raises:
        WorkerError: ``quantize.not-enough-memory``.
    """
    text = source.config.get("text_config") or source.config
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    blocks = int(text.get("num_hidden_layers") or text.get("n_layer") or 1)
    block = 16 * (source.bytes // 2) // max(1, blocks)
    what = f"Learning the rounding on {tokens} tokens"
    models.check_memory(
        dataclasses.replace(job, device="cpu"), source.bytes + 12 * tokens * hidden + block, what
    )
    if job.on_gpu:
        models.check_memory(job, block, what)


def learn(
    job: Job,
    model: torch.nn.Module,
    tokenizer: Any,  # noqa: ANN401
    ids: list[list[int]],
    batch: int,
    configured: Mapping[str, Mapping[str, Any]],
    folder: Path,
    style: str,
) -> str:
    """Let AutoRound quantize ``model`` into a folder of its own within ``folder``; the call in short.

    torch's compiler stays out of it: it needs a C compiler that not every machine has, and what it
    compiles for each block takes longer than it saves on small ones.

    Raises:
        WorkerError: ``quantize.producer-failed``.
    """
    from auto_round import AutoRound
    from auto_round.schemes import QuantizationScheme

    recipe = job.recipe
    scheme = QuantizationScheme(
        bits=recipe.bits,
        group_size=asking.group_size(recipe),
        sym=recipe.symmetric is not False,
        data_type="int",
        act_bits=16,
    )
    given = {} if recipe.iterations is None else {"iters": recipe.iterations}
    try:
        with progress.follow_tqdm(unit="blocks"):
            AutoRound(
                model,
                tokenizer,
                scheme=scheme,
                layer_config={name: dict(one) for name, one in configured.items()} or None,
                dataset=rows.batches(ids, batch),
                seqlen=len(ids[0]),
                nsamples=len(ids),
                batch_size=batch,
                device_map=job.device,
                enable_torch_compile=False,
                seed=SEED,
                trust_remote_code=job.trust_remote_code,
                **given,
            ).quantize_and_save(str(folder), format=style)
    # The library raises what it likes, and so does a model's own code.
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise failed(job, model, error) from error
    width = f"W{recipe.bits}" + (f"+W{recipe.mixed_bits}" if recipe.mixed_bits else "")
    return (
        f"AutoRound({width}A16, group_size={scheme.group_size}, sym={scheme.sym}, "
        f"iters={recipe.iterations or DEFAULT_ITERATIONS}, batch_size={batch}, "
        f"nsamples={len(ids)}).quantize_and_save(format={style!r})"
    )


def failed(job: Job, model: object, error: Exception) -> WorkerError:
    """The error of a library that gave up on a model."""
    return WorkerError(
        "quantize.producer-failed",
        f"AutoRound failed on {type(model).__name__}.",
        f"{type(error).__name__}: {error}"[:400],
        f"The log has the whole traceback. Another producer or method may know this model "
        f"({job.recipe.method} was asked for).",
        exit_code=4,
    )
