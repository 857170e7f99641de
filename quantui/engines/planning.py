"""From choices and facts to a plan. Pure: whatever has to be looked up is an argument."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

from quantui.domain.adapter_match import check_adapter_fits
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.memory import Device, estimate_memory
from quantui.domain.methods import method
from quantui.domain.plan import CheckStep, DownloadStep, EngineFacts, Plan, ServeStep, Step
from quantui.engines.merge_planning import merge_notices, merge_step, model_name
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


@dataclass(frozen=True)
class Facts:
    """What was looked up for a draft. ``download_jobs`` by step id, for what is not on disk yet."""

    model: ModelSpec
    adapters: tuple[AdapterSpec, ...]
    hardware: HardwareReport
    engine: EngineFacts
    merge_engine: EngineFacts
    artifacts_dir: str
    workers_dir: str
    port: int
    download_jobs: dict[str, dict[str, object]]


def build_plan(
    draft: Draft,
    facts: Facts,
    *,
    serve: bool = True,
    force: bool = False,
    out: str | None = None,
) -> Plan:
    """The steps for ``draft`` on this machine; with ``serve=False`` only what prepares the checkpoint.

    ``out`` is a folder to merge into; without it the merged model is an artifact of quantui's.

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
    if facts.adapters:
        for adapter in facts.adapters:
            notices += check_adapter_fits(facts.model, adapter).notes
        notices += merge_notices(facts)
        merge = merge_step(draft, facts, gpus, out=out)
        steps.append(merge)
        model_path = merge.path
        if merge.serve_lora_on_failure:
            (adapter,) = facts.adapters
            lora = (adapter, adapter.path or "")
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
            quantization_argument=quantization_argument(facts.model, chosen, facts.engine),
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
        draft, facts.model, facts.adapters, facts.engine, estimate, tuple(steps), tuple(notices)
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
    return draft.serve.served_name or model_name(facts)


def download_steps(
    model: ModelSpec, adapters: tuple[AdapterSpec, ...]
) -> list[tuple[str, ModelSpec | AdapterSpec]]:
    """The id that the download of each would have as a step."""
    ids = ["download-adapter", *(f"download-adapter-{n}" for n in range(2, len(adapters) + 1))]
    return [("download-base", model), *zip(ids, adapters, strict=False)]


def _downloads(facts: Facts) -> list[Step]:
    steps: list[Step] = []
    for step_id, spec in download_steps(facts.model, facts.adapters):
        job = facts.download_jobs.get(step_id)
        if job is not None:
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


def _free(gpu: Gpu) -> int:
    return gpu.free_bytes or 0


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
