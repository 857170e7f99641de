"""The step that makes a quantized checkpoint: of what, where, what it is known by, and how it is proven. Pure."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_seconds
from quantui.domain.plan import ArtifactKey, QuantizeStep, WorkerCall
from quantui.domain.producing.estimates import preflight, require_room, told
from quantui.domain.producing.memory import Room
from quantui.domain.producing.producers import makings, producers
from quantui.engines.merge_planning import (
    made_from,
    merge_inputs,
    merged_bytes,
    model_name,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.draft import Draft, QuantizationChoice
    from quantui.domain.hardware import Gpu
    from quantui.domain.plan import CalibrationFacts, EngineFacts, MergeStep
    from quantui.domain.producing.recipe import Recipe
    from quantui.engines.planning import Facts

PROOF_TOKENS = 4096
"""Tokens of held-out text whose perplexity is measured."""

PROOF_CONTEXT = 640
"""Tokens that the proof serves: a window of 512, and room to ask."""


def quantize_step(
    draft: Draft,
    facts: Facts,
    recipe: Recipe,
    gpus: tuple[Gpu, ...],
    *,
    model_path: str,
    merge: MergeStep | None = None,
    why_not_vllm: str = "",
    out: str | None = None,
    force: bool = False,
) -> QuantizeStep:
    """Make ``recipe`` of the checkpoint that will be at ``model_path``: an artifact, or the user's folder ``out``.

    ``merge`` is the step that makes that checkpoint, if one does. ``why_not_vllm``: why vLLM does not run the result
    on this machine, empty where it does. Raises QuantuiError ``quantize.no-engine`` (exit code 4), and
    ``quantize.not-enough-memory``, ``quantize.no-gpu`` or ``quantize.not-enough-disk`` (exit code 3) unless ``force``.
    """
    chosen, engine = draft.quantization, facts.quantize_engine
    if engine is None:
        raise QuantuiError(
            "quantize.no-engine",
            f"No engine that has {producers()[recipe.producer].title} was looked for.",
            fix="This is a defect of quantui: report the command.",
            exit_code=ExitCode.ENGINE,
        )
    room = _room(facts, gpus, engine)
    found = preflight(
        recipe,
        facts.model,
        room,
        device=chosen.device,
        samples=chosen.calibration_samples,
        length=chosen.calibration_length,
        merged_bytes=0 if merge is None else merge.bytes,
    )
    if not force:
        require_room(found, recipe, facts.model, room, device=chosen.device)
    key = ArtifactKey(
        base=model_name(facts),
        kind=recipe.slug,
        inputs={
            **_model_inputs(draft, facts, merge),
            **_recipe_inputs(chosen, facts, recipe, engine),
        },
    )
    proof, runtime, proof_device = _proof(draft, facts, recipe, engine, gpus, why_not_vllm)
    text = chosen.proof_text or draft.check.text
    return QuantizeStep(
        id="quantize",
        title=f"quantize to {recipe.method} with {producers()[recipe.producer].title}, {recipe.text}",
        argv=(engine.python, _worker(facts, producers()[recipe.producer].worker)),
        job={
            "model": model_path,
            "recipe": recipe.to_job(),
            "calibration": calibration_job(chosen, facts.calibration)
            if recipe.needs_data
            else None,
            "trust_remote_code": draft.model.trust_remote_code,
            "memory_limit_bytes": None,
        },
        artifact=key,
        devices=found.devices or ("cpu",),
        bytes=int(found.disk_bytes.value) - (0 if merge is None else merge.bytes),
        recreate=chosen.recreate,
        path=out or str(PurePath(facts.artifacts_dir, key.folder)),
        recipe=recipe,
        reference=_reference(draft, facts, recipe, model_path, text),
        proof=proof,
        proof_runtime=runtime,
        proof_device=proof_device,
        preflight=found,
        why_not_vllm=why_not_vllm,
        max_loss=chosen.max_loss,
        to_folder=out is not None,
        command=_command(facts, chosen, out),
        options=_options(draft),
        made_from=made_from(draft, facts, (*_command(facts, chosen, None), *_options(draft))),
    )


def calibration_job(
    chosen: QuantizationChoice, found: CalibrationFacts | None
) -> dict[str, object]:
    """The ``calibration`` of a producer's job: its texts as they were found, a data set at its commit."""
    return {
        "source": chosen.calibration if found is None else found.source,
        "samples": chosen.calibration_samples,
        "length": chosen.calibration_length,
        "seed": chosen.calibration_seed,
    }


def quantize_notices(step: QuantizeStep) -> list[str]:
    """What a person should know before it starts: who makes it, with what, how long, and how it is proven."""
    recipe, found = step.recipe, step.preflight
    notices = [recipe.why, *recipe.notes]
    notices.append(f"Making it takes {told(found)}. {' '.join(found.reasons)}")
    if found.seconds is None:
        notices.append("Nobody has measured how long it takes on a machine like this one.")
    else:
        about = format_seconds(found.seconds.value)
        notices.append(
            f"It takes about {about}, and the measurements before and after it: "
            f"{found.seconds.formula} ({found.seconds.source})."
        )
    data = step.job["calibration"]
    if data and data["source"] == "builtin":
        notices.append(
            f"It is calibrated on {data['samples']} built-in samples of English documentation and code: "
            "texts of your own use are better (--calibration)."
        )
    elif data:
        notices.append(f"It is calibrated on {data['samples']} samples of {data['source']}.")
    if step.reference is None:
        notices.append(
            "The 16-bit model does not fit into memory here: what quantizing costs is not measured."
        )
    if step.why_not_vllm:
        notices.append(
            f"vLLM cannot serve it on this machine: {step.why_not_vllm} It is proven in {step.proof_runtime} instead."
        )
    return notices


def _room(facts: Facts, gpus: tuple[Gpu, ...], engine: EngineFacts) -> Room:
    host = facts.hardware.host
    disk = host.disk("artifacts")
    return Room(() if engine.on_cpu else gpus, host, disk.free_bytes if disk else None)


def _model_inputs(draft: Draft, facts: Facts, merge: MergeStep | None) -> dict[str, str]:
    """The 16-bit model, merged or not; how its merge was proven changes nothing."""
    if merge is None:
        return {"base": facts.model.fingerprint}
    of_the_merge = ("producer", "peft", "transformers")
    return {
        **merge_inputs(draft, facts.model, facts.adapters),
        "dtype": draft.merge.dtype,
        "tokenizer": draft.merge.tokenizer_from,
        **{f"merge {name}": merge.artifact.inputs[name] for name in of_the_merge},
    }


def _recipe_inputs(
    chosen: QuantizationChoice, facts: Facts, recipe: Recipe, engine: EngineFacts
) -> dict[str, str]:
    producer = producers()[recipe.producer]
    inputs = {
        "recipe": json.dumps(recipe.to_job(), sort_keys=True),
        "producer": producer.work,
        **{name: engine.versions.get(name, "unknown") for name in producer.versions},
    }
    if recipe.needs_data and facts.calibration is not None:
        inputs["calibration"] = facts.calibration.fingerprint
        inputs["samples"] = str(chosen.calibration_samples)
        inputs["length"] = str(chosen.calibration_length)
        inputs["seed"] = str(chosen.calibration_seed)
    return inputs


def _reference(
    draft: Draft, facts: Facts, recipe: Recipe, model_path: str, text: str | None
) -> WorkerCall | None:
    """What measures the 16-bit model; None where that cannot be held and the producer does not hold it either."""
    making = makings()[recipe.method][recipe.producer]
    free = facts.hardware.host.ram_available_bytes
    needed = merged_bytes(facts.model, "auto") + producers()[recipe.producer].base_bytes
    if making.shard_by_shard and free is not None and free < needed:
        return None
    return WorkerCall(
        (facts.merge_engine.python, _worker(facts, "measure_model.py")),
        {
            "model": model_path,
            "text": text,
            "tokens": PROOF_TOKENS,
            "trust_remote_code": draft.model.trust_remote_code,
            "memory_limit_bytes": None,
        },
    )


def _proof(
    draft: Draft,
    facts: Facts,
    recipe: Recipe,
    engine: EngineFacts,
    gpus: tuple[Gpu, ...],
    why_not_vllm: str,
) -> tuple[WorkerCall, str, str]:
    """The worker that loads the result, the runtime's name for a person, and its device if it is not the maker's."""
    job: dict[str, object] = {
        "text": draft.quantization.proof_text or draft.check.text,
        "tokens": PROOF_TOKENS,
        "trust_remote_code": draft.model.trust_remote_code,
        "max_model_len": PROOF_CONTEXT,
    }
    versions = engine.versions
    if recipe.writes == "onnx":
        program, python = "prove_in_onnxruntime.py", engine.python
        return (
            WorkerCall((python, _worker(facts, program)), job),
            f"ONNX Runtime {versions.get('onnxruntime', '')}".strip(),
            "cpu",
        )
    if why_not_vllm:
        return (
            WorkerCall((engine.python, _worker(facts, "prove_in_transformers.py")), job),
            f"transformers {versions.get('transformers', '')}".strip(),
            "",
        )
    serving = facts.engine
    where = "CPU" if serving.on_cpu else "GPU"
    best = max(gpus, key=lambda gpu: gpu.free_bytes or 0, default=None)
    return (
        WorkerCall((serving.python, _worker(facts, "prove_in_vllm.py")), job),
        f"vLLM {serving.vllm_version} ({where})",
        "cpu" if serving.on_cpu or best is None else f"cuda:{best.index}",
    )


def _worker(facts: Facts, name: str) -> str:
    return str(PurePath(facts.workers_dir, name))


def _command(facts: Facts, chosen: QuantizationChoice, out: str | None) -> tuple[str, ...]:
    """`quantui quantize` with what is quantized, how, and where to."""
    words = ["quantize", source_of(facts.model), *map(source_of, facts.adapters)]
    words += ["--method", chosen.method]
    return (*words, *(["--out", out] if out else []))


_FLAGS = {
    "producer": "--producer",
    "bits": "--bits",
    "group_size": "--group-size",
    "mixed_bits": "--mixed-bits",
    "format": "--format",
    "rounding": "--rounding",
    "calibration": "--calibration",
    "calibration_samples": "--samples",
    "calibration_length": "--length",
    "calibration_seed": "--seed",
    "device": "--device",
    "proof_text": "--proof-text",
    "max_loss": "--max-loss",
}
"""Options of ``[quantization]`` that have a flag of `quantui quantize` of their own with one value."""


def _options(draft: Draft) -> tuple[str, ...]:
    """The options of `quantui quantize` that say what ``draft`` has otherwise than by default."""
    chosen, plain = draft.quantization, type(draft.quantization)()
    words: list[str] = []
    for name, flag in _FLAGS.items():
        value = getattr(chosen, name)
        if value != getattr(plain, name):
            words += [flag, str(value)]
    if chosen.symmetric is not None:
        words += ["--set", "quantization.symmetric=true"] if chosen.symmetric else ["--asymmetric"]
    if chosen.ignore != plain.ignore:
        words += [word for name in chosen.ignore for word in ("--ignore", name)]
    words += ["--recreate"] if chosen.recreate else []
    words += _settings(
        {
            "quantization.python": chosen.python,
            "engine.python": draft.engine.python,
            "engine.name": None if draft.engine.name == "auto" else draft.engine.name,
            "adapter.weights": list(draft.adapter.weights) or None,
            "merge.dtype": None if draft.merge.dtype == "auto" else draft.merge.dtype,
            "merge.tokenizer_from": (
                None if draft.merge.tokenizer_from == "auto" else draft.merge.tokenizer_from
            ),
            "serve.visible_devices": list(draft.serve.visible_devices) or None,
            "model.trust_remote_code": "true" if draft.model.trust_remote_code else None,
        }
    )
    return tuple(words)


def _settings(values: Mapping[str, object]) -> list[str]:
    return [
        word
        for name, value in values.items()
        if value is not None
        for word in ("--set", f"{name}={value}")
    ]
