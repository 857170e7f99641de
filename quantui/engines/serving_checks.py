"""What has to hold of model, method, engine and devices before vLLM is started with them. Pure."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from quantui.domain.checkpoint_facts import text_config
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.methods import check_runs_here, method, methods

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
        ),
        partial(_check_tensor_parallel, size, model, engine, gpus),
        partial(_check_plugin, _stored(model) or chosen, engine),
    )


def _stored(model: ModelSpec) -> Method | None:
    """The method whose format the checkpoint is stored in, if the catalogue has it."""
    wanted = model.quantization
    return next(
        (known for known in methods().values() if wanted and known.argument == wanted), None
    )


def _check_tensor_parallel(
    size: int, model: ModelSpec, engine: EngineFacts, gpus: tuple[Gpu, ...]
) -> None:
    if size == 1:
        return
    heads = text_config(model.config).get("num_attention_heads")
    if not engine.on_cpu and size > len(gpus):
        why = f"{len(gpus)} GPUs can be used."
    elif isinstance(heads, int) and heads % size:
        why = f"{heads} attention heads do not divide by {size}."
    else:
        return
    raise QuantuiError(
        "serve.tensor-parallel",
        f"serve.tensor_parallel = {size} is not possible here.",
        why,
        "Choose a number of GPUs that divides the attention heads.",
        ExitCode.DOES_NOT_FIT,
    )


def _check_plugin(chosen: Method, engine: EngineFacts) -> None:
    if chosen.plugin is None or chosen.plugin_since is None:
        return
    numbers = re.findall(r"\d+", engine.vllm_version)[:2]
    if len(numbers) == 2 and tuple(map(int, numbers)) < chosen.plugin_since:
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
