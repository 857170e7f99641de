"""What has to hold of model, method, engine and devices before vLLM is started with them. Pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.methods import check_runs_here, method, methods
from quantui.domain.support.method_formats import stored_candidates
from quantui.domain.versions import version_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.domain.draft import Draft
    from quantui.domain.hardware import Gpu
    from quantui.domain.methods import Method
    from quantui.domain.models import ModelSpec
    from quantui.domain.plan import EngineFacts


def serving_checks(
    draft: Draft, model: ModelSpec, engine: EngineFacts, gpus: tuple[Gpu, ...]
) -> tuple[Callable[[], None], ...]:
    """The checks, each to be called: it raises QuantuiError with exit code 3, or 4 for a lacking plugin."""
    chosen, size = method(draft.quantization.method), draft.serve.tensor_parallel
    return (
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


def check_can_be_had(chosen: Method, model: ModelSpec) -> None:
    """Refuse (exit code 2) a format that only a checkpoint can have, for a model that is stored in 16 bit.

    vLLM would be started without an argument then, and serve 16 bit under the format's name.
    """
    if chosen.name == "none" or chosen.in_flight or model.quantization is not None:
        return
    made = ", ".join(
        name
        for name, one in methods().items()
        if one.in_flight and one.argument and one.status in ("current", "plugin")
    )
    raise QuantuiError(
        "method.needs-checkpoint",
        f"{chosen.title} needs a checkpoint in that format; {model.ref} is not quantized.",
        "vLLM does not make it while it loads, and quantui does not make such checkpoints yet.",
        f"Give a copy in that format (`quantui inspect {model.ref} --variants` looks for one), or take a format "
        f"that is made while loading: {made}.",
        ExitCode.BAD_INPUT,
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
