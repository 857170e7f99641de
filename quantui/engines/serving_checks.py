"""What has to hold of model, method, engine and devices before vLLM is started with them. Pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.methods import check_runs_here, method
from quantui.domain.producing.produced import produced_method, unread_by_vllm
from quantui.domain.support.method_formats import stored_candidates
from quantui.domain.versions import version_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.domain.draft import Draft
    from quantui.domain.hardware import Gpu
    from quantui.domain.methods import Method
    from quantui.domain.models import ModelSpec
    from quantui.domain.plan import EngineFacts
    from quantui.domain.producing.recipe import Recipe


def serving_checks(
    draft: Draft,
    model: ModelSpec,
    engine: EngineFacts,
    gpus: tuple[Gpu, ...],
    recipe: Recipe | None = None,
) -> tuple[Callable[[], None], ...]:
    """The checks, each to be called: it raises QuantuiError with exit code 3, or 4 for a lacking plugin.

    ``recipe``: how the checkpoint that is served is made of ``model``.
    """
    chosen, size = method(draft.quantization.method), draft.serve.tensor_parallel
    if recipe is not None:
        chosen = produced_method(recipe)
    made = () if recipe is None else (partial(_check_written, recipe, engine),)
    return (
        *made,
        partial(
            check_runs_here,
            chosen,
            on_cpu=engine.on_cpu,
            gpus=gpus,
            checkpoint_quantization=model.quantization,
            tensor_parallel=size,
            shape=model_shape(model.config),
            config=model.config,
            dtype=draft.serve.dtype,
            vllm_version=engine.vllm_version,
        ),
        partial(_check_gpus, size, engine, gpus),
        partial(_check_plugin, _stored(model) or chosen, engine),
    )


def served_here(
    draft: Draft,
    model: ModelSpec,
    engine: EngineFacts,
    gpus: tuple[Gpu, ...],
    recipe: Recipe | None,
    *,
    serve: bool,
    force: bool,
) -> tuple[str, list[str]]:
    """Why vLLM cannot run it on this machine, empty where it can, and what ``force`` has overridden.

    Raises the first reason of :func:`serving_checks` without ``force``. What is only made, not served, needs no
    plugin, and no ``force`` where it has a runtime of its own.
    """
    unserved = ""
    forced: list[str] = []
    own_runtime = recipe is not None and method(recipe.writes).status == "other-runtime"
    for require in serving_checks(draft, model, engine, gpus, recipe):
        try:
            require()
        except QuantuiError as error:
            why = error.why.removesuffix(".")
            unserved = unserved or error.what.removesuffix(".") + (f" ({why})." if why else ".")
            elsewhere = error.exit_code == ExitCode.DOES_NOT_FIT
            if not serve and (own_runtime or not elsewhere):
                continue
            if own_runtime:
                error.fix = f"Make it with `quantui quantize`, which proves it there. {error.fix}"
            if own_runtime or not force or not elsewhere:
                raise (error if recipe is None else _asking_for_force(error)) from None
            forced.append(f"forced: {error.what}")
    if not unserved and recipe is not None and not serve and engine.vllm_version == "unknown":
        unserved = f"the engine {engine.name} has no vLLM."
    return unserved, forced


def _asking_for_force(error: QuantuiError) -> QuantuiError:
    """``error`` before something is made that this machine could not serve."""
    if error.exit_code == ExitCode.DOES_NOT_FIT:
        error.fix = (
            f"{error.fix} With --force it is made all the same, for another machine.".strip()
        )
    return error


def _check_written(recipe: Recipe, engine: EngineFacts) -> None:
    """What vLLM refuses of a format by its width and zero points, as it does of such a checkpoint."""
    why = unread_by_vllm(recipe, on_cpu=engine.on_cpu)
    if why is not None:
        raise QuantuiError(
            "method.unsupported",
            f"vLLM does not read {recipe.method} as {recipe.text}.",
            why,
            "Leave the option at its default, or take --producer llm-compressor.",
            ExitCode.DOES_NOT_FIT,
        )


def _stored(model: ModelSpec) -> Method | None:
    """The method whose format the checkpoint is stored in, if the catalogue has it."""
    if model.quantization is None:
        return None
    return next(iter(stored_candidates(model.quantization, model_shape(model.config))), None)


def _check_gpus(size: int, engine: EngineFacts, gpus: tuple[Gpu, ...]) -> None:
    """A split needs GPUs; whether there are enough, and whether the model divides, is asked with the method."""
    if size > 1 and not gpus and not engine.on_cpu:
        raise QuantuiError(
            "serve.tensor-parallel",
            f"serve.tensor_parallel = {size} is not possible here.",
            "0 GPUs can be used.",
            "Set serve.tensor_parallel = 1, or use the CPU engine.",
            ExitCode.DOES_NOT_FIT,
        )


def _check_plugin(chosen: Method, engine: EngineFacts) -> None:
    if chosen.plugin is None:
        _check_packages(chosen, engine)
    if chosen.plugin is None or chosen.plugin_since is None:
        return
    if version_numbers(engine.vllm_version) < chosen.plugin_since:
        return
    if chosen.plugin not in engine.versions:
        since = ".".join(map(str, chosen.plugin_since))
        raise QuantuiError(
            "engine.lacks-plugin",
            f"The engine {engine.python} lacks {chosen.plugin}.",
            f"vLLM {engine.vllm_version} has {chosen.title} only through it (since {since}).",
            f"Install it there (pip install --no-deps {chosen.plugin}), or use quantui's own engine.",
            ExitCode.ENGINE,
        )


def _check_packages(chosen: Method, engine: EngineFacts) -> None:
    lacking = [name for name in chosen.requires if name not in engine.versions]
    if lacking:
        raise QuantuiError(
            "engine.lacks-packages",
            f"The engine {engine.python} lacks {', '.join(lacking)}.",
            f"vLLM reads {chosen.title} with it ({chosen.source}).",
            f"Install it there (pip install {' '.join(lacking)}), or use quantui's own engine.",
            ExitCode.ENGINE,
        )
