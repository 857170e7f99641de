"""Whether the sizes of a described machine can be true, and what stands for those it leaves out. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.hardware import Problem

if TYPE_CHECKING:
    from quantui.domain.hardware import Gpu, HardwareReport, Host, MigSlice

LEAST_GPU_BYTES = 256 * 1024**2
"""Below the smallest card that CUDA 12 supports (2 GiB) by far: less is a number in another unit."""
MOST_GPU_BYTES = 4 * 1024**4
"""Above the largest card sold (0.28 TiB) and the largest unified memory by far."""
LEAST_RAM_BYTES = 64 * 1024**2
MOST_RAM_BYTES = 256 * 1024**4
MOST_GPUS = 4096
ASSUMED_FREE = "hardware.assumed-free"
"""Code of the note that says what was taken as free."""


def check_sizes(report: HardwareReport) -> None:
    """Refuse sizes that no machine has, and parts that are larger than their whole.

    Raises QuantuiError ``hardware.absurd-size``, ``hardware.free-above-total``,
    ``hardware.same-index`` or ``hardware.too-many-gpus``, with the field's path in the document.
    """
    if len(report.gpus) > MOST_GPUS:
        raise QuantuiError(
            "hardware.too-many-gpus",
            f"The machine description lists {len(report.gpus)} GPUs.",
            f"One machine has at most {MOST_GPUS} here.",
            "Describe one machine.",
        )
    seen: set[int] = set()
    for position, gpu in enumerate(report.gpus):
        where = f"gpus[{position}]"
        if gpu.index in seen:
            raise QuantuiError(
                "hardware.same-index",
                f"In the machine description, {where}.index is {gpu.index} for the second time.",
                "GPUs are chosen by their index.",
                "Number them 0, 1, 2, or leave index out.",
            )
        seen.add(gpu.index)
        _in_range(f"{where}.total_bytes", gpu.total_bytes, LEAST_GPU_BYTES, MOST_GPU_BYTES)
        _part(where, "free_bytes", gpu.free_bytes, gpu.total_bytes)
        _part(where, "used_bytes", gpu.used_bytes, gpu.total_bytes)
        for number, piece in enumerate(gpu.mig or ()):
            inner = f"{where}.mig[{number}]"
            _in_range(f"{inner}.total_bytes", piece.total_bytes, LEAST_GPU_BYTES, MOST_GPU_BYTES)
            _part(inner, "free_bytes", piece.free_bytes, piece.total_bytes)
    host = report.host
    _in_range("ram_bytes", host.ram_total_bytes, LEAST_RAM_BYTES, MOST_RAM_BYTES)
    _part("host", "ram_available_bytes", host.ram_available_bytes, host.ram_total_bytes)
    for number, disk in enumerate(host.disks):
        _part(f"host.disks[{number}]", "free_bytes", disk.free_bytes, disk.total_bytes)


def with_free_memory(report: HardwareReport) -> HardwareReport:
    """``report`` with memory that is not said to be in use taken as free, and a note that says so.

    Without it a description of its least form, or a data sheet's, would leave every answer unknown. A GPU
    that shares the host's RAM has that size.
    """
    host = report.host
    notes: list[Problem] = []
    if host.ram_available_bytes is None and host.ram_total_bytes is not None:
        host = _all_ram_free(host)
        notes.append(_assumed("All of the RAM is taken as free.", "ram_available_bytes"))
    return replace(
        report,
        gpus=tuple(_all_free(_sharing(gpu, host)) for gpu in report.gpus),
        host=host,
        problems=(*report.problems, *notes),
    )


def _sharing(gpu: Gpu, host: Host) -> Gpu:
    if not gpu.unified_memory or gpu.total_bytes is not None:
        return gpu
    total, free = host.ram_total_bytes, host.ram_available_bytes
    return replace(gpu, total_bytes=total, free_bytes=gpu.free_bytes or free)


def _all_free(gpu: Gpu) -> Gpu:
    if gpu.mig_enabled and gpu.mig:
        parts = tuple(map(_free_slice, gpu.mig))
        if parts == gpu.mig:
            return gpu
        note = _assumed(
            f"GPU {gpu.index}: all memory of MIG slices is taken as free.", "free_bytes"
        )
        return replace(gpu, mig=parts, problems=(*gpu.problems, note))
    if gpu.free_bytes is not None or gpu.total_bytes is None:
        return gpu
    free = gpu.total_bytes - (gpu.used_bytes or 0) - (gpu.reserved_bytes or 0)
    note = _assumed(f"GPU {gpu.index}: all memory is taken as free.", "free_bytes")
    return replace(gpu, free_bytes=max(0, free), problems=(*gpu.problems, note))


def _free_slice(part: MigSlice) -> MigSlice:
    if part.free_bytes is not None or part.total_bytes is None:
        return part
    return replace(part, free_bytes=max(0, part.total_bytes - (part.used_bytes or 0)))


def _all_ram_free(host: Host) -> Host:
    return replace(host, ram_available_bytes=host.ram_total_bytes)


def _assumed(what: str, field: str) -> Problem:
    return Problem(ASSUMED_FREE, what, f"The description does not give {field}.", severity="note")


def _in_range(path: str, value: int | None, least: int, most: int) -> None:
    if value is None or least <= value <= most:
        return
    # 80 and 81920 are what people write who mean GiB and MiB.
    meant = next(
        (
            f"If {value} {unit} are meant, write {value * size}."
            for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))
            if value and 1024**3 <= value * size <= most and value < 10**7
        ),
        f"Write bytes, from {least} to {most}, or leave the field out if it is unknown.",
    )
    raise QuantuiError(
        "hardware.absurd-size",
        f"In the machine description, {path} is {value} bytes.",
        f"Sizes are in bytes; this would be {format_bytes(value)}.",
        meant,
    )


def _part(where: str, name: str, value: int | None, total: int | None) -> None:
    if value is None or total is None or value <= total:
        return
    what = {"free_bytes": "free", "used_bytes": "used", "ram_available_bytes": "available"}[name]
    raise QuantuiError(
        "hardware.free-above-total",
        f"In the machine description, {where}.{name} is more than there is.",
        f"{value} bytes are {what} of {total} in all.",
        f"Correct {where}.{name}, or leave it out if it is unknown.",
    )
