"""From choices and facts to a plan. Pure: whatever has to be looked up is an argument."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

from quantui.domain.adapter_match import check_adapter_fits
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.memory import Device, estimate_memory
from quantui.domain.methods import method
from quantui.domain.plan import (
    ArtifactKey,
    CheckStep,
    DownloadStep,
    EngineFacts,
    MergeStep,
    Plan,
    ServeStep,
    Step,
)
from quantui.engines.serving_checks import serving_checks
from quantui.engines.vllm_server import (
    quantization_argument,
    server_argv,
    server_environment,
)

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.domain.memory import MemoryEstimate
    from quantui.domain.methods import Method
    from quantui.domain.models import AdapterSpec, ModelSpec

MERGE_PRODUCER = "merge_peft/1"
"""Changes when the same inputs would give other bytes: older artifacts are then not reused."""


@dataclass(frozen=True)
class Facts:
    """What was looked up for a draft. ``download_jobs`` by step id, for what is not on disk yet."""

    model: ModelSpec
    adapter: AdapterSpec | None
    hardware: HardwareReport
    engine: EngineFacts
    merge_engine: EngineFacts
    artifacts_dir: str
    workers_dir: str
    port: int
    download_jobs: dict[str, dict[str, object]]


def build_plan(draft: Draft, facts: Facts, *, serve: bool = True, force: bool = False) -> Plan:
    """The steps for ``draft`` on this machine; with ``serve=False`` only what prepares the checkpoint.

    Raises QuantuiError for what cannot work: exit code 2 for inputs that do not belong together, 3 for what does
    not fit or is not supported. ``force`` turns the latter into notices.
    """
    chosen = method(draft.quantization.method)
    gpus = chosen_gpus(draft, facts)
    notices: list[str] = []
    for require in serving_checks(draft, facts.model, facts.engine, gpus) if serve else ():
        try:
            require()
        except QuantuiError as error:
            if not force or error.exit_code != ExitCode.DOES_NOT_FIT:
                raise
            notices.append(f"forced: {error.what}")
    steps: list[Step] = _downloads(facts)
    base_path = facts.model.path or ""
    model_path, lora = base_path, None
    if facts.adapter is not None:
        fit = check_adapter_fits(facts.model, facts.adapter)
        notices += fit.notes
        notices += _adapter_notices(facts)
        merge = _merge_step(draft, facts, gpus)
        steps.append(merge)
        model_path = merge.path
        if draft.merge.on_failure == "serve-lora":
            lora = (facts.adapter, facts.adapter.path or "")
    # What is only prepared here may be served where there is more room.
    estimate = _estimate(draft, facts, chosen, gpus, force=force or not serve)
    # A merge, or the method, leaves the size as the base's: the estimate holds for both.
    name = served_name(draft, facts)
    if serve:
        command = partial(
            server_argv,
            draft,
            facts.engine,
            estimate,
            served_name=name,
            port=facts.port,
            quantization_argument=quantization_argument(facts.model, chosen),
        )
        steps.append(
            ServeStep(
                id="serve",
                title=f"serve with vLLM, {chosen.title}",
                argv=command(model_path=model_path),
                lora_argv=None if lora is None else command(model_path=base_path, lora=lora),
                env=server_environment(draft, on_cpu=facts.engine.on_cpu),
                host=draft.serve.host,
                port=facts.port,
                served_name=name,
                timeout_s=draft.serve.startup_timeout_s,
                api_key_env=draft.serve.api_key_env,
            )
        )
        check = draft.check
        steps.append(
            CheckStep(
                "check",
                "ask the served model",
                check.prompt,
                check.max_tokens,
                check.text,
                check.max_perplexity,
            )
        )
    return Plan(
        draft, facts.model, facts.adapter, facts.engine, estimate, tuple(steps), tuple(notices)
    )


def chosen_gpus(draft: Draft, facts: Facts) -> tuple[Gpu, ...]:
    """The GPUs that the draft selects; an index that is not there is refused."""
    if facts.engine.on_cpu:
        return ()
    wanted = draft.serve.visible_devices
    there = {gpu.index: gpu for gpu in facts.hardware.gpus}
    for index in wanted:
        if index not in there:
            raise QuantuiError(
                "hardware.no-such-gpu",
                f"serve.visible_devices names GPU {index}.",
                f"This machine has {', '.join(map(str, there)) or 'none'}.",
                "Name GPUs as `quantui doctor` numbers them.",
                ExitCode.DOES_NOT_FIT,
            )
    return tuple(there[index] for index in wanted) or facts.hardware.gpus


def served_name(draft: Draft, facts: Facts) -> str:
    """The name clients use: the profile's, or the last part of the adapter's or model's."""
    return draft.serve.served_name or _model_name(facts)


def _model_name(facts: Facts) -> str:
    ref = facts.adapter.ref if facts.adapter else facts.model.ref
    name = PurePath(ref).name or "model"
    if name in {"adapter", "base", "model", ".", ".."}:
        # A folder's generic name says nothing: its parent's does.
        parent = PurePath(ref).parent.name
        name = f"{parent}-{name}" if parent else name
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "model"


def _downloads(facts: Facts) -> list[Step]:
    steps: list[Step] = []
    specs = (("download-base", facts.model), ("download-adapter", facts.adapter))
    for step_id, spec in specs:
        job = facts.download_jobs.get(step_id)
        if job is not None and spec is not None:
            steps.append(
                DownloadStep(
                    id=step_id,
                    title=f"download {spec.ref}",
                    argv=(sys.executable, str(PurePath(facts.workers_dir, "download_snapshot.py"))),
                    job=job,
                    bytes=spec.download_bytes,
                    path=spec.path or "",
                )
            )
    return steps


def _merge_step(draft: Draft, facts: Facts, gpus: tuple[Gpu, ...]) -> MergeStep:
    adapter, model = facts.adapter, facts.model
    assert adapter is not None
    if model.quantization:
        raise QuantuiError(
            "merge.quantized-base",
            f"{model.ref} is quantized ({model.quantization}); an adapter is not merged into it.",
            "Rounding the sum to a few bits loses the adapter's small changes.",
            "Give the 16-bit base in model.id, also for an adapter that was trained in 4 bit.",
        )
    key = ArtifactKey(
        # Not the name it is served under: that is no input of a merge.
        base=_model_name(facts),
        kind="merged",
        inputs={
            "base": model.fingerprint,
            "adapter": adapter.fingerprint,
            "producer": MERGE_PRODUCER,
            "peft": facts.merge_engine.versions.get("peft", "unknown"),
            "transformers": facts.merge_engine.versions.get("transformers", "unknown"),
            "verify": draft.merge.verify,
        },
    )
    weights = model.weight_bytes or 0
    return MergeStep(
        id="merge",
        title=f"merge {PurePath(adapter.ref).name} into {PurePath(model.ref).name}",
        argv=(facts.merge_engine.python, str(PurePath(facts.workers_dir, "merge_peft.py"))),
        job={
            "base": model.path,
            "adapter": adapter.path,
            "verify": draft.merge.verify,
            "prompts": [draft.check.prompt],
            "trust_remote_code": draft.model.trust_remote_code,
        },
        artifact=key,
        devices=merge_devices(draft.merge.device, weights, gpus),
        bytes=weights,
        recreate=draft.merge.recreate,
        serve_lora_on_failure=draft.merge.on_failure == "serve-lora",
        path=str(PurePath(facts.artifacts_dir, key.folder)),
    )


def merge_devices(wanted: str, weight_bytes: int, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Where to try the merge, in order: a GPU that has the weights and a fifth free, then the CPU.

    Numbers are NVML's; :func:`quantui.domain.plan.alone_on` makes them CUDA's.
    """
    roomy = [gpu for gpu in gpus if gpu.free_bytes and gpu.free_bytes > weight_bytes * 1.2]
    on_gpu = tuple(f"cuda:{gpu.index}" for gpu in sorted(roomy, key=_free, reverse=True)[:1])
    if wanted == "gpu":
        if not on_gpu:
            raise QuantuiError(
                "merge.no-gpu",
                "merge.device is gpu, and no GPU has room for the merge.",
                f"It needs about {weight_bytes * 1.2 / 1024**3:.1f} GiB free on one card.",
                'Set merge.device = "auto" or "cpu".',
                ExitCode.DOES_NOT_FIT,
            )
        return on_gpu
    return ("cpu",) if wanted == "cpu" else (*on_gpu, "cpu")


def _free(gpu: Gpu) -> int:
    return gpu.free_bytes or 0


def _adapter_notices(facts: Facts) -> list[str]:
    adapter = facts.adapter
    assert adapter is not None
    notices: list[str] = []
    if adapter.four_bit.answer:
        notices.append(
            "The adapter was trained on a 4-bit base; it is merged into the 16-bit base, "
            "which usually gives better text than merging into dequantized weights."
        )
    if adapter.base_ref and PurePath(adapter.base_ref).name != PurePath(facts.model.ref).name:
        notices.append(
            f"The adapter names {adapter.base_ref} as its base, and is merged into {facts.model.ref}."
        )
    return notices


def _estimate(
    draft: Draft, facts: Facts, chosen: Method, gpus: tuple[Gpu, ...], *, force: bool
) -> MemoryEstimate:
    serve, host = draft.serve, facts.hardware.host
    if facts.engine.on_cpu:
        device = Device(True, host.ram_total_bytes, host.ram_available_bytes, "RAM")
    else:
        worst = min(gpus, key=_free, default=None)
        device = Device(
            False,
            worst.total_bytes if worst else None,
            worst.free_bytes if worst else None,
            f"GPU {worst.index} ({worst.name})" if worst else "the GPU",
        )
    return estimate_memory(
        facts.model,
        chosen,
        device,
        tensor_parallel=serve.tensor_parallel,
        dtype=serve.dtype,
        requested_context=serve.max_model_len,
        max_num_seqs=serve.max_num_seqs,
        utilization=serve.gpu_memory_utilization,
        kv_cache_bytes=None if serve.kv_cache_gib is None else int(serve.kv_cache_gib * 1024**3),
        eager=serve.enforce_eager,
        force=force,
    )
