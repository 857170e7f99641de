"""This machine's devices as vLLM could use them, and the ways to spread a model over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.hardware_checks import MIN_COMPUTE_CAPABILITY, gpu_problems, usable_gpus
from quantui.domain.performance.gpu_models import gpu_model

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.domain.performance.gpu_models import GpuModel


@dataclass(frozen=True)
class Slot:
    """One GPU, or one MIG slice of it: ``gpu`` then has the slice's name and memory."""

    gpu: Gpu
    model: GpuModel | None
    sliced: bool = False

    @property
    def kind(self) -> tuple[str | None, int | None, tuple[int, int] | None]:
        """What makes two cards equal: name, memory, compute capability."""
        return self.gpu.name, self.gpu.total_bytes, self.gpu.compute_capability

    @property
    def free_bytes(self) -> int:
        """Free memory; the total where free is not known, 0 where neither is."""
        gpu = self.gpu
        return (gpu.free_bytes if gpu.free_bytes is not None else gpu.total_bytes) or 0

    @property
    def bandwidth(self) -> float:
        """Bytes a second its memory reads; 0 unknown."""
        return self.model.bandwidth_bytes_per_s if self.model else 0.0


@dataclass(frozen=True)
class Layout:
    """Devices and how a model is spread over them; no slots: the CPU engine."""

    slots: tuple[Slot, ...]
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    @property
    def on_cpu(self) -> bool:
        """Whether it is the CPU engine."""
        return not self.slots

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The devices, slices standing for themselves."""
        return tuple(slot.gpu for slot in self.slots)

    @property
    def slowest(self) -> GpuModel | None:
        """The card that the others wait for; None when one of them is unknown."""
        models = [slot.model for slot in self.slots]
        if not models or None in models:
            return None
        return min((one for one in models if one), key=lambda one: one.bandwidth_bytes_per_s)


def usable_slots(
    report: HardwareReport,
    gpus: tuple[int, ...] | None,
    lowest: tuple[int, int] = MIN_COMPUTE_CAPABILITY,
) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """The devices vLLM can use, the fastest and emptiest first, and why others cannot be.

    ``gpus`` None: any. A card in MIG mode counts as its slices. CUDA_VISIBLE_DEVICES, where it names indices, limits
    what is taken unless ``gpus`` says otherwise. ``lowest``: the compute capability that vLLM needs.
    """
    wanted = _visible(report) if gpus is None else gpus
    allowed = {gpu.index for gpu in usable_gpus(report, lowest)}
    found: list[Slot] = []
    notes: list[str] = []
    for gpu in report.gpus:
        if wanted is not None and gpu.index not in wanted:
            continue
        if gpu.index not in allowed:
            problems = gpu_problems(gpu, lowest)
            told = [f"{one.what} {one.why}" for one in problems if one.severity != "note"]
            notes += told[:1]
        else:
            found += _slots_of(gpu)
    order = sorted(found, key=lambda slot: (-slot.bandwidth, -slot.free_bytes, slot.gpu.index))
    return tuple(order), tuple(notes)


def layouts(
    slots: tuple[Slot, ...], *, counts: Collection[int] | None = None
) -> Iterator[tuple[Layout, ...]]:
    """Ways to spread a model, by number of devices: of each number, the best first.

    Equal cards are taken together before unequal ones; tensor parallel comes before pipeline parallel. Whether the
    model divides so is for the method's support to say. ``counts``: the numbers of cards beyond one to look at; None:
    every number. Slices of a card are not combined: NCCL has no
    peer-to-peer between MIG devices.
    """
    if not slots:
        yield (Layout(()),)
        return
    kinds: dict[object, list[Slot]] = {}
    for slot in slots:
        kinds.setdefault((slot.kind, slot.sliced), []).append(slot)
    yield tuple(Layout((group[0],)) for group in kinds.values())
    whole = [slot for slot in slots if not slot.sliced]
    equal = [group for group in kinds.values() if not group[0].sliced]
    for count in range(2, len(whole) + 1):
        if counts is not None and count not in counts:
            continue
        subsets = [tuple(group[:count]) for group in equal if len(group) >= count]
        if not subsets:
            freest = sorted(whole, key=lambda slot: (-slot.free_bytes, slot.gpu.index))
            subsets = [tuple(freest[:count])]
        yield tuple(
            Layout(tuple(sorted(subset, key=lambda slot: slot.gpu.index)), tensor, count // tensor)
            for subset in subsets
            for tensor in range(count, 0, -1)
            if count % tensor == 0
        )


def _slots_of(gpu: Gpu) -> Iterator[Slot]:
    if not gpu.mig_enabled or not gpu.mig:
        yield Slot(
            gpu,
            gpu_model(
                gpu.name, compute_capability=gpu.compute_capability, total_bytes=gpu.total_bytes
            ),
        )
        return
    for part in gpu.mig:
        as_gpu = replace(
            gpu,
            uuid=part.uuid,
            name=f"{gpu.name or 'unknown'} MIG {part.profile or '?'}",
            total_bytes=part.total_bytes,
            used_bytes=part.used_bytes,
            free_bytes=part.free_bytes,
            reserved_bytes=None,
            mig_enabled=False,
            mig=None,
        )
        parent = gpu_model(
            gpu.name,
            compute_capability=gpu.compute_capability,
            total_bytes=gpu.total_bytes,
            mig_profile=part.profile,
        )
        yield Slot(as_gpu, parent, sliced=True)


def _visible(report: HardwareReport) -> tuple[int, ...] | None:
    """CUDA_VISIBLE_DEVICES as indices, by number or by UUID; None where it is not set.

    As CUDA reads it: what stands behind the first name that is no device is not visible, and an empty value hides all.
    """
    text = report.cuda_visible_devices
    if text is None:
        return None
    found: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        index = next((gpu.index for gpu in report.gpus if _is_called(gpu, part)), None)
        if index is None:
            break
        found.append(index)
    return tuple(found)


def _is_called(gpu: Gpu, name: str) -> bool:
    if name.isdigit():
        return gpu.index == int(name)
    uuids = [gpu.uuid, *(part.uuid for part in gpu.mig or ())]
    return len(name) > 4 and any(uuid is not None and uuid.startswith(name) for uuid in uuids)
