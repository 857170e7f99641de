"""Will it fit: weights, KV cache, transient peak, graphs and context on the GPU with the least room, and a verdict.

Per rank, `KV = utilization x total - (weights + context + transient peak + LoRA slots) - CUDA graphs`; graphs are in
the budget since vLLM 0.20, before they come on top. On the CPU the budget is the free RAM. vLLM refuses at three
gates, which are followed exactly: free memory at start below utilization x total (vllm/v1/worker/utils.py,
request_memory), no room for the cache, and no room for one request of max_model_len (v1/core/kv_cache_utils.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.fitting.activations import Transient
from quantui.domain.fitting.fit_facts import (
    Calibration,
    Change,
    Device,
    Figure,
    Fit,
    FitRequest,
    LoraSlots,
    Verdict,
)
from quantui.domain.fitting.fit_gates import gates
from quantui.domain.fitting.fit_reasons import bare_reasons, unsupported_reasons
from quantui.domain.fitting.fit_room import Pool, Room
from quantui.domain.fitting.remembered_room import room_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.methods import Method
    from quantui.domain.weights.weight_groups import WeightGroup

__all__ = [
    "LEAST_CONTEXT",
    "Calibration",
    "Change",
    "Device",
    "Figure",
    "Fit",
    "FitRequest",
    "LoraSlots",
    "Verdict",
    "fit",
]

LEAST_CONTEXT = 256
"""Below this many tokens a served model is of no use: what must fit when no context is asked for."""


def fit(
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    devices: Sequence[Device],
    request: FitRequest,
    *,
    calibration: Calibration | None = None,
    stored_bytes: int | None = None,
    suggest: bool = True,
) -> Fit:
    """Whether ``request`` fits on ``devices``, one for each rank (the last stands for those that lack).

    ``stored_bytes``: size of the weight files, used when ``census`` is None. With ``suggest`` the smallest change
    that would make it fit is looked for, which costs some more calls. Pure; tens of microseconds.
    """
    room = room_for(shape, census, method, devices, request, calibration, stored_bytes)
    found = _answer(room, request)
    if suggest and found.verdict in ("tight", "does not fit"):
        from quantui.domain.fitting.smallest_change import smallest_change

        found = replace(
            found,
            smallest_change=smallest_change(
                found, shape, census, method, devices, request, calibration, stored_bytes
            ),
        )
    if suggest and found.verdict == "unsupported" and (request.context or 0) > room.limit:
        within = replace(request, context=room.limit)
        again = fit(
            shape,
            census,
            method,
            devices,
            within,
            calibration=calibration,
            stored_bytes=stored_bytes,
            suggest=False,
        )
        if again.verdict == "fits":
            text = "the longest that the model was made for"
            found = replace(found, smallest_change=Change("--context", str(room.limit), text))
    return found


def _answer(room: Room, request: FitRequest) -> Fit:
    """The verdict and all figures."""
    budget = room.budget
    reasons = unsupported_reasons(room.shape, request, room.limit)
    if room.weights.bytes < 0 or budget is None or room.cache_is_unknown:
        return _unknown(room, request, reasons)
    asked = request.context or min(room.limit, LEAST_CONTEXT)
    pool = room.pool(request.context or room.limit, budget)
    longest, safe = room.longest(budget, request.users)
    wanted = max(
        room.plan.bytes_for(asked, request.users, pool.in_flight), request.kv_cache_bytes or 0
    )
    if request.context is None and room.rules.engine == "v0":
        pool = room.pool(max(safe, asked), budget)
    if room.device.on_cpu and request.kv_cache_bytes is None:
        pool = room.for_cpu(pool, asked if request.context else max(safe, asked), request.users)
    gate, gate_reasons = gates(room, budget, pool)
    if reasons:
        verdict: Verdict = "unsupported"
    elif gate < 0 or pool.high < wanted or pool.high <= 0:
        verdict = "does not fit"
    elif gate > 0 and pool.low >= wanted and pool.low > 0:
        verdict = "fits"
    else:
        verdict = "tight"
    told = max(asked, request.context or longest)
    missing = max(0, int(wanted - (pool.low if verdict == "tight" else pool.expected)))
    if not reasons:
        reasons = (
            *gate_reasons,
            *bare_reasons(verdict, pool.expected, wanted, asked, request.users),
        )
    return _fit(
        room,
        pool,
        verdict,
        reasons,
        kv_cache_tokens=room.plan.tokens(pool.expected, told, pool.in_flight),
        max_context=longest,
        safe_context=safe,
        users=room.plan.users(pool.expected, request.context or max(1, longest), pool.in_flight),
        max_model_len=request.context or max(min(room.limit, LEAST_CONTEXT), safe),
        budget=budget,
        missing=missing,
        asked_bytes=int(wanted),
    )


def _unknown(room: Room, request: FitRequest, reasons: tuple[str, ...]) -> Fit:
    unknown = (
        "the weights could not be counted"
        if room.weights.bytes < 0
        else "the memory of the device is not known"
        if room.budget is None
        else "the config does not tell the KV cache"
    )
    transient = Transient(0, 0, 0, 0, "not computed")
    return _fit(
        room,
        Pool(0, 0, 0, transient, 0, 0),
        "unsupported" if reasons or room.weights.bytes < 0 else "tight",
        (*reasons, f"whether it fits is not computed: {unknown}"),
        kv_cache_tokens=None,
        max_context=None,
        safe_context=None,
        users=None,
        max_model_len=request.context,
        budget=room.budget,
        missing=0,
    )


def _fit(
    room: Room,
    pool: Pool,
    verdict: Verdict,
    reasons: tuple[str, ...],
    *,
    kv_cache_tokens: int | None,
    max_context: int | None,
    safe_context: int | None,
    users: int | None,
    max_model_len: int | None,
    budget: int | None,
    missing: int,
    asked_bytes: int | None = None,
) -> Fit:
    weights, peak = room.weights, pool.transient
    other, other_low, other_high = room.other
    held = room.device.others_bytes
    if held is None:
        total, free = room.device.total_bytes, room.device.free_bytes
        held = total - free if total is not None and free is not None else 0
    kept = peak.kept
    version = room.request.vllm_version
    cache = (
        max(0, int(pool.expected)),
        max(0, int(pool.low)),
        max(0, int(pool.high)),
    )
    size = f"{room.plan.bytes_per_token} B a token, blocks of {room.plan.block_tokens} tokens"
    return Fit(
        weights=Figure(
            max(0, weights.bytes),
            max(0, int(weights.bytes - weights.low_by)),
            max(0, int(weights.bytes + weights.high_by)),
            weights.formula,
            weights.source,
        ),
        kv_cache=Figure(
            *cache,
            f"what is left of the budget; {size}" if room.request.kv_cache_bytes is None else size,
            f"vllm/v1/core/kv_cache_utils.py, as in {version}",
        ),
        transient=Figure(
            peak.peak + kept,
            peak.low + kept,
            peak.high + kept,
            peak.formula,
            f"tensor sizes of the profile run, vLLM {version}",
        ),
        graphs=Figure(
            *room.graphs,
            "0.3 MiB x layers x batch sizes" if room.graphs[0] else "none: eager",
            "measured loads of vLLM 0.7 to 0.11, 0.2 to 0.8 MiB",
        ),
        context=Figure(
            other + room.residual,
            other_low + room.residual,
            other_high + room.residual,
            "processes of the server" if room.device.on_cpu else "workspaces and communication",
            room.calibration.source
            if room.calibration and room.calibration.runs
            else "measured loads, by the card's size",
        ),
        lora=Figure(
            weights.lora, weights.lora, weights.lora, weights.lora_formula, "vllm/lora/layers"
        ),
        others=Figure(held, held, held, "total - free", "the device, before the start"),
        kv_bytes_per_token=room.plan.bytes_per_token,
        kv_cache_tokens=kv_cache_tokens,
        max_context=max_context,
        safe_context=safe_context,
        users=users,
        verdict=verdict,
        reasons=reasons,
        utilization=room.utilization,
        max_model_len=max_model_len,
        max_num_seqs=room.sequences,
        max_num_batched_tokens=pool.tokens,
        budget_bytes=budget,
        missing_bytes=missing,
        device=room.device.name,
        graphs_in_budget=room.rules.graphs_in_budget,
        asked_bytes=asked_bytes,
    )
