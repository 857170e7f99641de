"""From choices and facts to a plan. Pure: whatever has to be looked up is an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from quantui.domain.adapter_match import check_adapter_fits
from quantui.domain.choosing.layouts import Layout, usable_slots
from quantui.domain.choosing.options import devices
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.fitting.calibration import calibration_for
from quantui.domain.fitting.visible_gpus import visible_gpus
from quantui.domain.memory import Device, estimate_memory
from quantui.domain.methods import method
from quantui.domain.plan import (
    CalibrationFacts,
    CheckStep,
    EngineFacts,
    MergeStep,
    Plan,
    ServeStep,
    Step,
)
from quantui.domain.producing.produced import produced_method
from quantui.domain.producing.recipes import check_makeable, recipe_for
from quantui.engines.fetching import downloads, install_steps
from quantui.engines.load_expectation import expectation_of, load_of
from quantui.engines.memory_options import memory_options
from quantui.engines.merge_planning import merge_notices, merge_step, model_name
from quantui.engines.quantize_planning import quantize_notices, quantize_step
from quantui.engines.serving_checks import served_here
from quantui.engines.vllm_server import (
    quantization_argument,
    server_argv,
    server_environment,
)

__all__ = [
    "CalibrationFacts",
    "Facts",
    "build_plan",
    "chosen_gpus",
    "served_name",
]

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.fitting.calibration import Calibration, Observation
    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.domain.memory import MemoryEstimate
    from quantui.domain.methods import Method
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.engines.memory_options import MemoryOptions


@dataclass(frozen=True)
class Facts:
    """What was looked up for a draft.

    ``download_jobs`` by step id, for what is not on disk yet; ``observations``: what earlier loads took.
    ``quantize_engine`` has the recipe's producer, ``calibration`` are its texts; None where nothing is made.
    """

    model: ModelSpec
    adapters: tuple[AdapterSpec, ...]
    hardware: HardwareReport
    engine: EngineFacts
    merge_engine: EngineFacts
    artifacts_dir: str
    workers_dir: str
    port: int
    download_jobs: dict[str, dict[str, object]]
    observations: tuple[Observation, ...] = ()
    quantize_engine: EngineFacts | None = None
    calibration: CalibrationFacts | None = None


def build_plan(
    draft: Draft,
    facts: Facts,
    *,
    serve: bool = True,
    force: bool = False,
    make: bool = False,
    out: str | None = None,
) -> Plan:
    """The steps for ``draft`` on this machine; with ``serve=False`` only what prepares the checkpoint.

    ``make`` quantizes what vLLM could make while loading, too. ``out`` is a folder for what the last of the steps
    that make something makes; without it that is an artifact of quantui's.

    Raises QuantuiError for what cannot work: exit code 2 for inputs that do not belong together, 3 for what does
    not fit or is not supported. ``force`` turns the latter into notices.
    """
    recipe = recipe_for(draft.quantization, facts.model, always=make)
    if recipe is not None:
        check_makeable(draft, recipe)
    chosen = method(draft.quantization.method) if recipe is None else produced_method(recipe)
    gpus = chosen_gpus(draft, facts)
    notices: list[str] = []
    unserved = ""
    if serve or recipe is not None:
        unserved, forced = served_here(
            draft, facts.model, facts.engine, gpus, recipe, serve=serve, force=force
        )
        notices += forced
    steps: list[Step] = [*install_steps(facts), *downloads(facts)]
    base_path = facts.model.path or ""
    model_path, lora = base_path, None
    merge: MergeStep | None = None
    if facts.adapters:
        for adapter in facts.adapters:
            notices += check_adapter_fits(facts.model, adapter).notes
        notices += merge_notices(facts)
        merge = merge_step(draft, facts, gpus, out=out if recipe is None else None)
        steps.append(merge)
        model_path = merge.path
        if merge.serve_lora_on_failure:
            (adapter,) = facts.adapters
            lora = (adapter, adapter.path or "")
    options = memory_options(draft)
    load = load_of(draft, facts, gpus, options, recipe)
    learned = calibration_for(load, facts.observations)
    # What is only prepared here may be served where there is more room.
    named = bool(draft.serve.visible_devices or facts.hardware.cuda_visible_devices)
    where = _devices(facts, gpus, ordered=named)
    size = partial(_estimate, facts, chosen, where, learned, force=force or not serve)
    estimate = size(options)
    if lora is not None:
        # The adapter may end up beside its base: what is asked of vLLM holds for that too.
        beside = size(memory_options(draft, lora[0]))
        estimate = replace(
            estimate,
            max_model_len=min(estimate.max_model_len, beside.max_model_len),
            kv_cache_bytes=min(estimate.kv_cache_bytes, beside.kv_cache_bytes),
        )
    if serve and estimate.fit is not None and estimate.fit.verdict == "tight":
        notices.append(f"memory is tight: {'; '.join(estimate.fit.reasons)}")
    if recipe is not None:
        if not unserved and estimate.fit is not None and estimate.fit.verdict == "does not fit":
            unserved = f"it does not fit: {'; '.join(estimate.fit.reasons)}"
        quantize = quantize_step(
            draft,
            facts,
            recipe,
            gpus,
            model_path=model_path,
            merge=merge,
            why_not_vllm=unserved,
            out=out,
            force=force,
        )
        notices += quantize_notices(quantize)
        steps.append(quantize)
        model_path = quantize.path
    # A merge leaves the size as the base's: the estimate holds for both.
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
        draft,
        facts.model,
        facts.adapters,
        facts.engine,
        estimate,
        tuple(steps),
        tuple(notices),
        expectation_of(load, facts, gpus, options, estimate, learned) if serve else None,
    )


def chosen_gpus(draft: Draft, facts: Facts) -> tuple[Gpu, ...]:
    """The GPUs that the draft selects, else those that CUDA_VISIBLE_DEVICES leaves; an unknown index is refused."""
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
    return tuple(there[index] for index in wanted) or visible_gpus(facts.hardware)


def served_name(draft: Draft, facts: Facts) -> str:
    """The name clients use: the profile's, or the last part of the adapter's or model's."""
    return draft.serve.served_name or model_name(facts)


def _estimate(
    facts: Facts,
    chosen: Method,
    where: tuple[Device, ...],
    learned: Calibration | None,
    options: MemoryOptions,
    *,
    force: bool,
) -> MemoryEstimate:
    return estimate_memory(
        facts.model,
        chosen,
        where,
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
        dtype=options.dtype,
        requested_context=options.context,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        utilization=options.utilization,
        kv_cache_bytes=options.kv_cache_bytes,
        kv_dtype=options.kv_dtype,
        block_size=options.block_size,
        lora_slots=options.lora_slots,
        eager=options.eager,
        force=force,
        vllm_version=facts.engine.vllm_version,
        calibration=learned,
    )


def _devices(facts: Facts, gpus: tuple[Gpu, ...], *, ordered: bool) -> tuple[Device, ...]:
    """One for each rank, in the order CUDA gives them out: as they were named, else the fastest kind first."""
    host = facts.hardware.host
    if facts.engine.on_cpu:
        return (Device(True, host.ram_total_bytes, host.ram_available_bytes, "RAM"),)
    report = replace(facts.hardware, gpus=gpus, cuda_visible_devices=None)
    slots, _ = usable_slots(report, None)
    place = {gpu.index: number for number, gpu in enumerate(gpus)}
    alike = ordered or len({slot.kind for slot in slots}) < 2
    order = sorted(
        slots, key=lambda slot: (0.0 if alike else -slot.bandwidth, place[slot.gpu.index])
    )
    return devices(Layout(tuple(order)), report) if order else (_NO_GPU,)


_NO_GPU = Device(False, None, None, "the GPU")
