"""Which GPUs a CUDA program sees when CUDA_VISIBLE_DEVICES is set, as the CUDA programming guide defines it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.hardware import Gpu, HardwareReport


def visible_gpus(report: HardwareReport) -> tuple[Gpu, ...]:
    """The report's GPUs that the variable leaves visible, in its order; all of them when it is not set.

    Entries are indices, or UUIDs ("GPU-...", "MIG-..."), which may be cut short as long as one device begins so. The
    first entry that names nothing hides itself and all after it; an empty value hides every GPU. A MIG device
    makes its GPU visible, with that slice only.
    """
    text = report.cuda_visible_devices
    if text is None:
        return report.gpus
    seen: dict[int, Gpu] = {}
    for entry in text.split(","):
        found = _named(entry.strip(), report.gpus)
        if found is None:
            break
        seen.setdefault(found.index, found)
    return tuple(seen.values())


def _named(entry: str, gpus: tuple[Gpu, ...]) -> Gpu | None:
    if entry.isascii() and entry.isdigit():
        return next((gpu for gpu in gpus if gpu.index == int(entry)), None)
    if entry.startswith("MIG-"):
        return _with_slice(entry, gpus)
    if not entry.startswith("GPU-"):
        return None
    found = [gpu for gpu in gpus if (gpu.uuid or "").startswith(entry)]
    return found[0] if len(found) == 1 else None


def _with_slice(entry: str, gpus: tuple[Gpu, ...]) -> Gpu | None:
    found = [
        (gpu, part) for gpu in gpus for part in gpu.mig or () if (part.uuid or "").startswith(entry)
    ]
    if len(found) != 1:
        return None
    gpu, part = found[0]
    return replace(gpu, mig=(part,))
