"""The memory of a plan: the fit of its model on its devices, the context to serve with, or a refusal that says why.

The arithmetic is :func:`quantui.domain.fitting.fit.fit`; here it becomes what a plan carries and what the user is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.fitting.fit import LEAST_CONTEXT, fit
from quantui.domain.fitting.fit_facts import Device, FitRequest, LoraSlots
from quantui.domain.fitting.gpu_budget import (
    cuda_context,
    lowered_utilization,
    requested_bytes,
)
from quantui.domain.units import GIB
from quantui.domain.versions import CURRENT_VLLM
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.calibration import Calibration
    from quantui.domain.fitting.fit_facts import Fit
    from quantui.domain.methods import Method
    from quantui.domain.models import ModelSpec

__all__ = ["LEAST_CONTEXT", "Device", "MemoryEstimate", "estimate_memory", "served_shape"]

_UNKNOWN_CONTEXT = 4096
"""Served when neither the model nor the memory tells how long a context may be."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU (or of RAM), and what they allow. ``sources`` explains each figure.

    ``cache_tokens``: the cache's size as vLLM will tell it; None: by ``kv_bytes_per_token``. ``fit`` has the figures'
    error bands and the verdict; None where nothing could be computed.
    """

    weight_bytes: int
    kv_bytes_per_token: int
    kv_cache_bytes: int
    transient_bytes: int
    overhead_bytes: int
    max_model_len: int
    utilization: float | None
    sources: Mapping[str, str]
    cache_tokens: int | None = None
    fit: Fit | None = None

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens that the KV cache holds, over all requests."""
        if self.cache_tokens is not None:
            return self.cache_tokens
        return self.kv_cache_bytes // max(1, self.kv_bytes_per_token)

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.weight_bytes + self.kv_cache_bytes + self.transient_bytes + self.overhead_bytes


def served_shape(model: ModelSpec) -> ModelShape:
    """The shape of ``model``, with the context that its tokenizer allows too."""
    shape = model_shape(model.config, model.tensors)
    return replace(shape, context_length=model.context_length or shape.context_length)


def estimate_memory(
    model: ModelSpec,
    chosen: Method,
    device: Device | Sequence[Device],
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    dtype: str = "auto",
    requested_context: int | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    utilization: float | None = None,
    kv_cache_bytes: int | None = None,
    kv_dtype: str = "auto",
    block_size: int | None = None,
    lora_slots: LoraSlots | None = None,
    eager: bool = False,
    force: bool = False,
    vllm_version: str = CURRENT_VLLM,
    calibration: Calibration | None = None,
) -> MemoryEstimate:
    """The estimate, with the context computed or the requested one checked.

    ``device``: one for each rank, or one that stands for all. Raises QuantuiError ``memory.*`` (exit code 3) when even
    the optimistic ends of the figures do not fit; with ``force`` the numbers come back as they are. Unknown sizes are
    not guessed: the context then is the requested or the model's own.
    """
    devices = tuple(device) if isinstance(device, Sequence) else (device,)
    shape = served_shape(model)
    limit = shape.context_length
    if requested_context and limit and requested_context > limit and not force:
        raise QuantuiError(
            "memory.context-too-long",
            f"serve.max_model_len is {requested_context}, the model was made for {limit} tokens.",
            "vLLM refuses a context above what config.json and its rope scaling give.",
            f"Use at most {limit}, or leave it unset.",
            ExitCode.DOES_NOT_FIT,
        )
    if utilization is not None and not force:
        _check_free(devices, utilization)
    found = fit(
        shape,
        weight_census(model.config, model.tensors),
        chosen,
        devices,
        FitRequest(
            context=requested_context,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            utilization=utilization,
            kv_dtype=kv_dtype,
            dtype=dtype,
            eager=eager,
            block_size=block_size,
            lora_slots=lora_slots,
            vllm_version=vllm_version,
            kv_cache_bytes=kv_cache_bytes,
        ),
        calibration=calibration,
        stored_bytes=model.weight_bytes,
        suggest=not force,
    )
    if found.max_context is None:
        return _not_computed(found, limit, requested_context, kv_cache_bytes)
    if found.verdict == "does not fit" and not force:
        raise _does_not_fit(found, chosen, devices[0], requested_context)
    return _estimate(found, shape, requested_context, force=force)


def _estimate(
    found: Fit, shape: ModelShape, requested: int | None, *, force: bool
) -> MemoryEstimate:
    context = found.max_model_len or _UNKNOWN_CONTEXT
    cache, tokens = found.kv_cache.bytes, found.kv_cache_tokens
    if force and (tokens or 0) < min(context, LEAST_CONTEXT):
        # What is asked of vLLM is at least possible in itself.
        context = requested or min(shape.context_length or LEAST_CONTEXT, LEAST_CONTEXT)
        cache, tokens = max(cache, context * found.kv_bytes_per_token), max(tokens or 0, context)
    overhead = found.context.bytes + (found.graphs.bytes if found.graphs_in_budget else 0)
    return MemoryEstimate(
        found.weights.bytes + found.lora.bytes,
        found.kv_bytes_per_token,
        cache,
        found.transient.bytes,
        overhead,
        context,
        found.utilization,
        _sources(found),
        tokens,
        found,
    )


def _sources(found: Fit) -> dict[str, str]:
    sources = {
        name: f"{figure.formula} ({figure.source})"
        for name, figure in found.figures.items()
        if figure.bytes or name in ("weights", "kv_cache")
    }
    sources["overhead"] = f"{found.context.formula}, CUDA graphs ({found.context.source})"
    if found.utilization is None:
        sources["overhead"] = f"{found.context.formula} ({found.context.source})"
    sources["verdict"] = f"{found.verdict}: {'; '.join(found.reasons)}"
    return sources


def _not_computed(
    found: Fit, limit: int | None, requested: int | None, kv_cache_bytes: int | None
) -> MemoryEstimate:
    return MemoryEstimate(
        found.weights.bytes,
        found.kv_bytes_per_token,
        kv_cache_bytes or 0,
        found.transient.bytes,
        found.context.bytes,
        requested or limit or _UNKNOWN_CONTEXT,
        found.utilization,
        {**_sources(found), "max_model_len": found.reasons[-1]},
    )


def _check_free(devices: tuple[Device, ...], utilization: float) -> None:
    """Refuse a share that surely is not free: vLLM does so itself, after the start."""
    for device in devices:
        if device.on_cpu or device.free_bytes is None or device.total_bytes is None:
            continue
        wanted = requested_bytes(device, utilization)
        if device.free_bytes - cuda_context(device)[1] >= wanted:
            continue
        raise QuantuiError(
            "memory.not-free",
            f"serve.gpu_memory_utilization is {utilization}, but only "
            f"{lowered_utilization(device, 1.0):.2f} of {device.name} is free.",
            "Other processes hold memory on the card; vLLM refuses to start then.",
            "Lower it, or stop them: `quantui doctor` names them.",
            ExitCode.DOES_NOT_FIT,
        )


def _does_not_fit(
    found: Fit, chosen: Method, device: Device, requested: int | None
) -> QuantuiError:
    place = "RAM" if device.on_cpu else found.device
    needed = (
        found.weights.bytes + found.lora.bytes + found.transient.bytes + found.context.bytes
    ) + (found.graphs.bytes if found.graphs_in_budget else 0)
    available = found.budget_bytes or 0
    if requested and (found.max_context or 0) >= LEAST_CONTEXT:
        shorter = found.safe_context or 0
        fix = (
            f"Set serve.max_model_len to {shorter} or less, "
            if shorter >= LEAST_CONTEXT
            else "Set a shorter serve.max_model_len, "
        )
        return QuantuiError(
            "memory.context-does-not-fit",
            f"A context of {requested} tokens does not fit into {place}.",
            f"Weights and overhead take {needed / GIB:.2f} of {available / GIB:.2f} GiB; "
            f"the rest holds {found.kv_cache_tokens} tokens.",
            f"{fix}or choose a method with smaller weights.",
            ExitCode.DOES_NOT_FIT,
        )
    change = found.smallest_change
    return QuantuiError(
        "memory.does-not-fit",
        f"The model does not fit into {place} ({chosen.title}).",
        f"Weights and overhead take {needed / GIB:.2f} GiB, {available / GIB:.2f} GiB can be used.",
        (f"The smallest change that fits: {change.text}. " if change else "")
        + "Choose a method with smaller weights, more GPUs (serve.tensor_parallel), or free memory. "
        "--force tries anyway.",
        ExitCode.DOES_NOT_FIT,
    )
