"""What a plan expects of its load, to be kept beside what the load then takes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.fitting.calibration import Expectation, Figures, Load, machine_key

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.fitting.calibration import Calibration
    from quantui.domain.hardware import Gpu
    from quantui.domain.memory import MemoryEstimate
    from quantui.domain.producing.recipe import Recipe
    from quantui.engines.memory_options import MemoryOptions
    from quantui.engines.planning import Facts


def load_of(
    draft: Draft,
    facts: Facts,
    gpus: tuple[Gpu, ...],
    options: MemoryOptions,
    recipe: Recipe | None = None,
) -> Load:
    """What identifies the load by ``draft``; ``gpus`` are those it may use, in order.

    ``recipe``: how the checkpoint that is loaded is made, which says more of its size than the method's name.
    """
    return Load(
        machine=machine_key(facts.hardware, gpus[: options.world]),
        engine=facts.engine.name,
        vllm_version=facts.engine.vllm_version,
        method=draft.quantization.method if recipe is None else recipe.slug,
        model=facts.model.fingerprint,
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
    )


def expectation_of(
    load: Load,
    facts: Facts,
    gpus: tuple[Gpu, ...],
    options: MemoryOptions,
    estimate: MemoryEstimate,
    calibration: Calibration | None,
) -> Expectation:
    """What ``estimate`` says of the load, without the correction by ``calibration`` that is in it."""
    on_cpu = facts.engine.on_cpu
    given = on_cpu or options.kv_cache_bytes is not None
    used = () if on_cpu else gpus[: options.world]
    sizes = [gpu.total_bytes for gpu in used if gpu.total_bytes is not None]
    corrected = calibration.residual_bytes if calibration else 0
    # What vLLM finds room for, where it is not told a size: a plan may ask for less, to be safe.
    room = None if given or estimate.fit is None else estimate.fit.kv_cache.bytes
    return Expectation(
        load=load,
        predicted=Figures(
            weights=estimate.weight_bytes,
            kv_cache=estimate.kv_cache_bytes if room is None else room + corrected,
            rest=max(0, estimate.transient_bytes + estimate.overhead_bytes - corrected),
            kv_tokens=estimate.kv_cache_tokens,
        ),
        on_cpu=on_cpu,
        kv_cache_given=given,
        device_bytes=facts.hardware.host.ram_total_bytes if on_cpu else min(sizes, default=None),
        max_model_len=estimate.max_model_len,
        max_num_seqs=options.max_num_seqs,
        model_ref=facts.model.ref[:200],
        gpus=tuple(gpu.index for gpu in used),
    )
