"""Why a fit is what it is, in words: what cannot be split, what lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.fit_facts import FitRequest, Verdict


def unsupported_reasons(shape: ModelShape, request: FitRequest, limit: int) -> tuple[str, ...]:
    """What no amount of memory changes: heads that do not divide, stages without layers, a context too long."""
    size, reasons = request.tensor_parallel, []
    heads, kv_heads = shape.heads, shape.kv_heads
    if heads and heads % size:
        reasons.append(f"{heads} attention heads do not divide by {size} GPUs")
    elif kv_heads and size > 1 and not _is_latent(shape) and kv_heads % size and size % kv_heads:
        # vllm/model_executor/layers/linear.py, QKVParallelLinear: divided, or repeated a whole number of times.
        reasons.append(f"{kv_heads} K/V heads and {size} GPUs do not divide each other")
    if shape.layers and request.pipeline_parallel > shape.layers:
        reasons.append(
            f"{shape.layers} layers are fewer than {request.pipeline_parallel} pipeline stages"
        )
    if request.context and request.context > limit:
        reasons.append(f"the model was made for {limit} tokens, {request.context} are asked for")
    return tuple(reasons)


def _is_latent(shape: ModelShape) -> bool:
    return any(each.kind == "mla" for each in shape.attention)


def bare_reasons(
    verdict: Verdict, room: float, wanted: int, context: int, users: int
) -> tuple[str, ...]:
    """What the verdict rests on: the cache that is needed and the room there is."""
    whose = f"{context} tokens" if users == 1 else f"{users} x {context} tokens"
    if verdict == "fits":
        return (
            f"{whose} need {format_bytes(wanted)} of KV cache, {format_bytes(int(room))} is there",
        )
    if room <= 0:
        lack = format_bytes(int(-room))
        return (f"weights, activations and overhead alone exceed the budget by {lack}",)
    return (
        f"{whose} need {format_bytes(wanted)} of KV cache, about {format_bytes(int(room))} is there",
    )
