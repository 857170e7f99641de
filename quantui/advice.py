"""The Python calls that say what fits and what to take: ``fit`` and ``recommend``, as the commands of that name.

They read configs and tensor headers, start nothing and change nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantui.domain import quantities
from quantui.domain.errors import QuantuiError
from quantui.domain.fitting.fit import FitRequest
from quantui.domain.fitting.placement import lora_slots
from quantui.domain.methods import method as method_named
from quantui.runtime.run_to_end import os_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.hardware import HardwareReport
    from quantui.runtime.fitting import FitAnswer
    from quantui.runtime.recommending import Recommended

__all__ = ["fit", "recommend"]

Reference = str | os.PathLike[str]
"""A folder, or a Hub id (``owner/name``)."""


def recommend(
    model_id: Reference,
    *,
    use_case: str = "balanced",
    adapter: Reference | None = None,
    context: int | None = None,
    users: int | None = None,
    gpus: Sequence[int] | None = None,
    hardware: HardwareReport | Reference | None = None,
    vllm_version: str | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    offline: bool | None = None,
) -> Recommended:
    """Which methods to serve a model with on a machine, ranked, with reasons; and why not the others.

    Example::

        from quantui import recommend

        answer = recommend("Qwen/Qwen2.5-7B-Instruct", use_case="many-users", users=64)
        for choice in answer.recommendation.choices:
            print(choice.rank, choice.method, choice.verdict, choice.reasons[0])

    ``answer.to_dict()`` is the document of ``quantui recommend --json``.

    Args:
        model_id: A model, or a LoRA adapter, whose base is then taken: a folder (config.json is enough) or a
            Hub id.
        use_case: What it is for, as ``quantui recommend --help`` lists.
        adapter: A LoRA adapter that is to be served with the model.
        context: Tokens of one request, prompt and answer; default: the use case's.
        users: Requests at the same time; default: the use case's.
        gpus: The only GPUs that may be used, by index; empty: the CPU.
        hardware: A report, or a file that describes a machine; default: this machine.
        vllm_version: Default: the installed engine's, else the one that quantui installs.
        revision: Branch, tag or commit of ``model_id`` on the Hub.
        adapter_revision: The same of ``adapter``.
        offline: Do not look for quantized copies on the Hub; default: as ``HF_HUB_OFFLINE`` says.

    Raises:
        QuantuiError: Not found or not permitted (exit code 5), a GPU that is not there (3), a bad argument or
            file (2). That nothing can be recommended is an answer.
    """
    from quantui.runtime.recommending import recommend_here
    from quantui.runtime.subject import look_at

    _positive("context", context)
    _positive("users", users)
    with os_errors():
        subject = look_at(
            _text(model_id),
            revision=revision,
            adapter=None if adapter is None else _text(adapter),
            adapter_revision=adapter_revision,
            hardware=_machine(hardware),
            vllm_version=_version(vllm_version),
            offline=offline,
            on_cpu=gpus is not None and not gpus,
        )
        return recommend_here(
            subject,
            use=use_case,
            context=context,
            users=users,
            gpus=None if gpus is None else tuple(gpus),
            offline=offline,
        )


def fit(
    model_id: Reference,
    method: str = "none",
    *,
    adapter: Reference | None = None,
    context: int | None = None,
    users: int = 1,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    utilization: float | None = None,
    kv_dtype: str = "auto",
    dtype: str = "auto",
    eager: bool = False,
    max_loras: int | None = None,
    max_lora_rank: int | None = None,
    gpus: Sequence[int] | None = None,
    hardware: HardwareReport | Reference | None = None,
    vllm_version: str | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    offline: bool | None = None,
) -> FitAnswer:
    """What a model takes on a machine with one method, and whether that fits.

    Example::

        from quantui import fit

        answer = fit("Qwen/Qwen2.5-7B-Instruct", "awq", context=8192, users=16)
        print(answer.verdict, answer.fit.max_context, answer.reasons)

    ``answer.to_dict()`` is the document of ``quantui fit --json``.

    Args:
        model_id: As in :func:`recommend`.
        method: The quantization method; default: the checkpoint as it is.
        adapter: A LoRA adapter that is served beside the model, unmerged.
        context: Tokens of one request, prompt and answer; default: what the memory allows.
        users: Requests of that length at the same time.
        tensor_parallel: GPUs that share each layer.
        pipeline_parallel: Stages that hold a part of the layers each.
        max_num_seqs: Most requests in one batch; default: vLLM's.
        max_num_batched_tokens: Most tokens in one batch; default: vLLM's.
        utilization: Part of each GPU's memory for vLLM; default: vLLM's, or what is free.
        kv_dtype: vLLM's ``--kv-cache-dtype``.
        dtype: vLLM's ``--dtype``.
        eager: Without CUDA graphs.
        max_loras: LoRA adapters in one batch, where any are served.
        max_lora_rank: Their highest rank.
        gpus: As in :func:`recommend`.
        hardware: As in :func:`recommend`.
        vllm_version: As in :func:`recommend`.
        revision: As in :func:`recommend`.
        adapter_revision: As in :func:`recommend`.
        offline: Use only what is on this machine; default: as ``HF_HUB_OFFLINE`` says.

    Raises:
        QuantuiError: As :func:`recommend`. That it does not fit, or is not supported, is an answer.
    """
    from quantui.runtime.fitting import fit_here
    from quantui.runtime.subject import look_at

    numbers = {
        "context": context,
        "users": users,
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_loras": max_loras,
        "max_lora_rank": max_lora_rank,
    }
    for name, value in numbers.items():
        _positive(name, value)
    if utilization is not None:
        utilization = quantities.fraction("utilization", str(utilization))
    request = FitRequest(
        context=context,
        users=users,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        utilization=utilization,
        kv_dtype=quantities.choice("kv_dtype", kv_dtype, quantities.KV_DTYPES),
        dtype=quantities.choice("dtype", dtype, quantities.DTYPES),
        eager=eager,
        lora_slots=lora_slots(max_loras, max_lora_rank),
    )
    chosen = method_named(method)
    with os_errors():
        subject = look_at(
            _text(model_id),
            revision=revision,
            adapter=None if adapter is None else _text(adapter),
            adapter_revision=adapter_revision,
            hardware=_machine(hardware),
            vllm_version=_version(vllm_version),
            offline=offline,
            on_cpu=gpus is not None and not gpus,
        )
        return fit_here(subject, chosen, request, None if gpus is None else tuple(gpus))


def _text(reference: Reference) -> str:
    return str(os.fspath(reference))


def _machine(hardware: HardwareReport | Reference | None) -> HardwareReport | str | None:
    return _text(hardware) if isinstance(hardware, str | os.PathLike) else hardware


def _version(text: str | None) -> str | None:
    return None if text is None else quantities.version("vllm_version", text)


def _positive(name: str, value: object) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):  # type: ignore[operator]
        raise _bad(name, value, "a whole number of at least 1")


def _bad(name: str, value: object, wanted: str) -> QuantuiError:
    return QuantuiError(
        "api.bad-argument", f"{name} is {str(value)[:40]!r}.", fix=f"Give {wanted}."
    )
