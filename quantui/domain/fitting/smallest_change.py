"""The smallest thing to alter so that it fits, by how little it takes from the user."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.fitting.fit import fit
from quantui.domain.fitting.fit_facts import Change
from quantui.domain.fitting.gpu_budget import lowered_utilization
from quantui.domain.formatting import format_bytes
from quantui.domain.hardware import Gpu
from quantui.domain.methods import method as method_named
from quantui.domain.support.method_support import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.fit_facts import Calibration, Device, Fit, FitRequest
    from quantui.domain.methods import Method
    from quantui.domain.weights.weight_groups import WeightGroup

MOST_UTILIZATION = 0.95
"""Above it, the driver, a desktop and memory that vLLM does not plan for have too little left."""
_FEW_SEQS = 16
_ROUND_CONTEXT = 1024
_FP8_CACHE_FROM = (8, 9)
"""FP8 keys and values are computed with natively from here on; they halve the cache for little quality."""
_SMALLER = ("fp8_per_channel", "fp8_per_tensor", "bitsandbytes", "awq", "gptq")
"""Formats worth naming as a way out: those made while loading by how little they lose, then the checkpoints that most
people can find or make."""


def smallest_change(
    found: Fit,
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    devices: Sequence[Device],
    request: FitRequest,
    calibration: Calibration | None,
    stored_bytes: int | None,
) -> Change | None:
    """The first change, in this order, that makes the verdict ``fits``; None when none alone does.

    Free: a lower share than is free, a higher utilization, fewer sequences than users need. Then what costs a
    little: up to half of the context, an FP8 cache, up to half of the users, GPUs that are idle, another format.
    Then speed (eager), then any context or number of users that fits; at last, what else is on the device.
    """

    def fits(changed: FitRequest, how: Method = method) -> Fit | None:
        again = fit(
            shape,
            census,
            how,
            devices,
            changed,
            calibration=calibration,
            stored_bytes=stored_bytes,
            suggest=False,
        )
        return again if again.verdict == "fits" else None

    for changed, how, change in _candidates(found, shape, method, devices, request):
        if fits(changed, how):
            return change
    return _freed(shape, census, method, devices, request, stored_bytes)


def _freed(
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    devices: Sequence[Device],
    request: FitRequest,
    stored_bytes: int | None,
) -> Change | None:
    """To stop what else is on the device, where that alone is in the way."""
    free = [replace(each, free_bytes=each.total_bytes, others_bytes=0) for each in devices]
    taken = max(
        (
            each.total_bytes - each.free_bytes
            for each in devices
            if each.total_bytes and each.free_bytes is not None
        ),
        default=0,
    )
    if taken <= 0:
        return None
    again = fit(shape, census, method, free, request, stored_bytes=stored_bytes, suggest=False)
    what = "the RAM" if devices[0].on_cpu else "the GPU"
    text = f"stop what uses {what}: {format_bytes(taken)} of it are taken"
    return Change("", "", text) if again.verdict == "fits" else None


def _candidates(
    found: Fit, shape: ModelShape, method: Method, devices: Sequence[Device], request: FitRequest
) -> Iterator[tuple[FitRequest, Method, Change]]:
    on_cpu = devices[0].on_cpu
    if not on_cpu:
        yield from _by_utilization(found, method, devices, request)
        yield from _by_sequences(found, method, request)
    short = _shorter(found, request, 2)
    if short:
        yield replace(request, context=int(short.value)), method, short
    capability = devices[0].compute_capability
    if not on_cpu and capability and capability >= _FP8_CACHE_FROM and request.kv_dtype == "auto":
        text = "an FP8 KV cache takes half of the room"
        yield replace(request, kv_dtype="fp8"), method, Change("--kv-dtype", "fp8", text)
    few = _fewer(found, request, 2)
    if few:
        yield replace(request, users=int(few.value)), method, few
    if not on_cpu:
        for size in _more_gpus(shape, devices, request):
            text = f"split each layer over {size} GPUs"
            yield (
                replace(request, tensor_parallel=size),
                method,
                Change("--tp", str(size), text),
            )
    for other in _smaller_formats(shape, method, devices, request):
        saved = format_bytes(found.weights.bytes * (1 - other.weight_bits / 16))
        text = f"{other.title} makes the weights smaller by about {saved}"
        yield request, other, Change("--method", other.name, text)
    if not on_cpu and not request.eager:
        text = "without CUDA graphs and compilation, at the price of speed"
        yield replace(request, eager=True), method, Change("--eager", "", text)
    anything = _shorter(found, request, 0)
    if anything:
        yield replace(request, context=int(anything.value)), method, anything
    alone = _fewer(found, request, 0)
    if alone:
        yield replace(request, users=int(alone.value)), method, alone


def _by_utilization(
    found: Fit, method: Method, devices: Sequence[Device], request: FitRequest
) -> Iterator[tuple[FitRequest, Method, Change]]:
    now = found.utilization or 0.0
    free = min(lowered_utilization(each, MOST_UTILIZATION) for each in devices[: request.world])
    if free < now:
        text = f"utilization {free:.2f} of the card is free before vLLM starts"
    elif free > now:
        text = f"let vLLM take {free:.0%} of the card"
    else:
        return
    change = Change("--utilization", f"{free:.2f}", text)
    yield replace(request, utilization=free), method, change


def _by_sequences(
    found: Fit, method: Method, request: FitRequest
) -> Iterator[tuple[FitRequest, Method, Change]]:
    for few in (64, _FEW_SEQS):
        least = max(few, request.users)
        if least < found.max_num_seqs:
            text = f"fewer requests at once make the sampler's tables smaller (now {found.max_num_seqs})"
            yield (
                replace(request, max_num_seqs=least),
                method,
                Change("--max-num-seqs", str(least), text),
            )


def _shorter(found: Fit, request: FitRequest, part: int) -> Change | None:
    """The longest context that surely fits, when it is at least 1/``part`` of the asked one (0: any)."""
    asked, safe = request.context, found.safe_context or 0
    if asked is None or safe >= asked or safe < 1:
        return None
    if safe > _ROUND_CONTEXT:
        safe = safe // _ROUND_CONTEXT * _ROUND_CONTEXT
    if (part and safe * part < asked) or (part == 0 and safe < 256):
        return None
    return Change("--context", str(safe), f"{safe} tokens of context instead of {asked}")


def _fewer(found: Fit, request: FitRequest, part: int) -> Change | None:
    users = found.users or 0
    if users >= request.users:
        users = request.users - 1
    if users < 1 or (part and users * part < request.users):
        return None
    return Change("--users", str(users), f"{users} requests at a time instead of {request.users}")


def _more_gpus(shape: ModelShape, devices: Sequence[Device], request: FitRequest) -> Iterator[int]:
    size = request.tensor_parallel * 2
    while size * request.pipeline_parallel <= len(devices):
        heads, kv_heads = shape.heads or size, shape.kv_heads or size
        if heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0):
            yield size
        size *= 2


def _smaller_formats(
    shape: ModelShape, method: Method, devices: Sequence[Device], request: FitRequest
) -> Iterator[Method]:
    """Formats that run here and take less than ``method``: see :data:`_SMALLER`."""
    if shape.quantization is not None:
        return
    gpus = tuple(
        Gpu(index, name=each.name, compute_capability=each.compute_capability)
        for index, each in enumerate(devices[: request.world])
        if not each.on_cpu
    )
    for name in _SMALLER:
        other = method_named(name)
        if other.weight_bits < method.weight_bits and (
            support(
                other,
                gpus=gpus,
                on_cpu=not gpus,
                shape=shape,
                dtype=request.dtype,
                tensor_parallel=request.tensor_parallel,
                pipeline_parallel=request.pipeline_parallel,
                vllm_version=request.vllm_version,
            ).supported
        ):
            yield other
