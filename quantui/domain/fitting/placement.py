"""Which of a machine's devices a request is placed on: what `fit` counts with. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.choosing.adapter_advice import LORA_RANKS
from quantui.domain.choosing.layouts import Layout, Slot, layouts, usable_slots
from quantui.domain.choosing.options import devices
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.fitting.fit_facts import LoraSlots

if TYPE_CHECKING:
    from quantui.domain.fitting.fit_facts import Device, FitRequest
    from quantui.domain.hardware import HardwareReport


def check_indices(report: HardwareReport, gpus: tuple[int, ...] | None) -> None:
    """Refuse GPUs that the machine does not have."""
    there = {gpu.index for gpu in report.gpus}
    for index in gpus or ():
        if index not in there:
            known = ", ".join(map(str, sorted(there)))
            raise QuantuiError(
                "hardware.no-such-gpu",
                f"--gpus names GPU {index}.",
                f"This machine has {known}." if known else "This machine has no GPU.",
                "Name GPUs as `quantui doctor` numbers them.",
                ExitCode.DOES_NOT_FIT,
            )


def lora_slots(max_loras: int | None, rank: int | None) -> LoraSlots | None:
    """vLLM's --max-loras and --max-lora-rank, the rank rounded up to one it takes; None when neither is said.

    Defaults are vLLM's own: one adapter, rank 16 (vllm/config/lora.py).
    """
    if max_loras is None and rank is None:
        return None
    size = next((size for size in LORA_RANKS if size >= (rank or 16)), LORA_RANKS[-1])
    return LoraSlots(max_loras or 1, size)


def slots_for(
    report: HardwareReport, gpus: tuple[int, ...] | None, lowest: tuple[int, int]
) -> tuple[tuple[Slot, ...], tuple[str, ...], str]:
    """The devices to count with, notes on others, and why none can be used where there are only such.

    ``lowest``: the compute capability that vLLM needs. Unusable devices are kept where there are no others: that the
    machine's RAM would do is no answer to a question about its GPUs.
    """
    slots, notes = usable_slots(report, gpus, lowest)
    if slots or gpus == () or not report.gpus:
        return slots, notes, ""
    wanted = tuple(gpu for gpu in report.gpus if gpus is None or gpu.index in gpus)
    if not wanted:
        wanted = report.gpus
        notes = ("CUDA_VISIBLE_DEVICES hides every GPU from vLLM.",)
    why = notes[0] if notes else "vLLM can use none of these GPUs."
    return tuple(Slot(gpu, None) for gpu in wanted), notes, why


def placements(slots: tuple[Slot, ...], request: FitRequest) -> list[tuple[Layout, str]]:
    """The ways to place the request's ranks, and why there are too few devices for it ("" when not)."""
    tensor, pipeline = request.tensor_parallel, request.pipeline_parallel
    if not slots:
        return [(Layout(()), "")]
    for same_count in layouts(slots):
        fitting = [
            (layout, "")
            for layout in same_count
            if (layout.tensor_parallel, layout.pipeline_parallel) == (tensor, pipeline)
        ]
        if fitting:
            return fitting
    whole = [slot for slot in slots if not slot.sliced]
    if not whole:
        lacking = f"{request.world} GPUs are needed; MIG slices cannot be combined."
    else:
        lacking = f"{request.world} GPUs are needed, {len(whole)} can be used."
    return [(Layout(tuple(whole or slots)[: request.world], tensor, pipeline), lacking)]


def devices_for(
    layout: Layout, slots: tuple[Slot, ...], report: HardwareReport
) -> tuple[Device, ...]:
    """One device a rank, then equal ones that are idle: what a larger tensor parallel size would take."""
    used = devices(layout, report)
    if layout.on_cpu or not layout.slots or layout.slots[0].sliced:
        return used
    taken = {slot.gpu.index for slot in layout.slots}
    kind = layout.slots[0].kind
    idle = tuple(slot for slot in slots if slot.gpu.index not in taken and slot.kind == kind)
    return (*used, *devices(Layout(idle), report)) if idle else used
