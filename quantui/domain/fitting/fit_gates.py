"""The gates before the cache: memory that has to be free at start, and CUDA graphs that come on top of the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.fitting.gpu_budget import cuda_context, requested_bytes
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from quantui.domain.fitting.fit_room import Pool, Room


def gates(room: Room, budget: int, pool: Pool) -> tuple[int, tuple[str, ...]]:
    """1: surely passed, -1: surely refused, 0: either, with reasons; free memory and graphs on top."""
    result, reasons = 1, []
    if room.device.on_cpu or room.utilization is None:
        return result, ()
    for device in room.devices:
        if device.free_bytes is None or device.total_bytes is None:
            continue
        want = requested_bytes(device, room.utilization)
        _, low, high = cuda_context(device)
        if device.free_bytes - high >= want:
            continue
        sure = device.free_bytes - low < want
        result = -1 if sure else min(result, 0)
        later = "" if room.rules.checks_free_memory else "; this vLLM starts and runs out later"
        reasons.append(
            f"{device.name}: utilization {room.utilization:.2f} is {want / GIB:.2f} GiB, "
            f"{device.free_bytes / GIB:.2f} GiB are free before the CUDA context "
            f"({low / GIB:.2f} to {high / GIB:.2f} GiB){later}"
        )
    if room.graphs[0] and not room.rules.graphs_in_budget and room.device.total_bytes:
        # Captured after the cache is allocated, in what the budget leaves and the peak gave back.
        _, low, high = cuda_context(room.device)
        free = room.device.free_bytes or room.device.total_bytes
        left = free - budget + pool.transient.peak
        if room.graphs[1] > left - low:
            result = -1
            reasons.append("CUDA graphs do not fit beside the budget")
        elif room.graphs[2] > left - high and room.graphs[0] > left - high:
            result = min(result, 0)
            reasons.append("CUDA graphs may not fit beside the budget")
    return result, tuple(reasons)
