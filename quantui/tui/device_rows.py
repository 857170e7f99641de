"""The rows of the Hardware step: what each device is, in one line. Pure, from the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.formatting import format_bytes
from quantui.domain.hardware_checks import usable_gpus
from quantui.domain.terminal_text import one_line
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.hardware import Gpu, HardwareReport, Problem
    from quantui.runtime.engines import EngineStatus

CPU, DISKS, ENGINES, PROBLEMS = "cpu", "disks", "engines", "problems"
"""Names of the rows that are no GPU; a GPU's is ``gpu`` and its index."""

_FIXED = 53
"""Columns of a GPU's row beside its name."""
SIGNS = {"error": "✗", "warning": "!", "note": "·"}


@dataclass(frozen=True)
class DeviceRow:
    """A line of the list. ``pick`` says what space does there: a GPU's index, "cpu", or None: nothing."""

    name: str
    content: Content
    pick: int | str | None = None


def picked_gpus(report: HardwareReport, gpus: tuple[int, ...] | None) -> frozenset[int]:
    """The GPUs that an answer stands for: None is every one that vLLM can use; an empty set is the CPU."""
    usable = {gpu.index for gpu in usable_gpus(report)}
    return frozenset(usable if gpus is None else usable & set(gpus))


def toggled(
    report: HardwareReport, gpus: tuple[int, ...] | None, pick: int | str
) -> tuple[int, ...] | None:
    """The answer after space on a GPU or on the CPU, which takes the GPUs' place; the last GPU gives way to it."""
    usable = {gpu.index for gpu in usable_gpus(report)}
    before = picked_gpus(report, gpus)
    if pick == CPU:
        return () if before else None
    after = before ^ {int(pick)}
    return None if after == usable else tuple(sorted(after))


def still_picked(report: HardwareReport, gpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The answer without GPUs that are not there or cannot be used any more; None where none of them is left."""
    if not gpus:
        return gpus
    return tuple(index for index in gpus if index in picked_gpus(report, gpus)) or None


def device_rows(
    report: HardwareReport,
    gpus: tuple[int, ...] | None,
    engines: Sequence[EngineStatus] | None,
    problems: Sequence[Problem],
    width: int,
) -> list[DeviceRow]:
    """Every row, each at most ``width`` columns: GPUs, CPU and RAM, disks, engines (None: not known yet), problems."""
    picked = picked_gpus(report, gpus)
    usable = {gpu.index for gpu in usable_gpus(report)}
    rows = [
        DeviceRow(
            f"gpu{gpu.index}",
            _gpu(gpu, gpu.index in picked, gpu.index in usable, width),
            gpu.index if gpu.index in usable else None,
        )
        for gpu in report.gpus
    ]
    rows.append(DeviceRow(CPU, _cpu(report, not picked, width), CPU if usable else None))
    rows.append(DeviceRow(DISKS, _labelled("disks", _disks(report), width)))
    rows.append(DeviceRow(ENGINES, _labelled("engines", _engines(engines), width)))
    rows.append(DeviceRow(PROBLEMS, _labelled("problems", problems_in_short(problems), width)))
    return rows


def header(width: int) -> Content:
    """The words above the columns of the GPUs."""
    name = "name".ljust(_name_width(width))
    line = f"    {'':<7}{name} {'total':>9} {'free':>9}  {'cc':<5}{'temp':<7}{'MIG'}"
    return Content.styled(line, "$text-muted")


def sign(severity: str) -> Content:
    """The mark of a problem; the word stands beside it. No colour of its own would show on a highlighted row."""
    return Content.styled(SIGNS.get(severity, "?"), "" if severity == "note" else "bold")


def problems_in_short(problems: Sequence[Problem]) -> Content:
    """``! 1 warning, · 2 notes``, or that there is none."""
    parts: list[Content | str] = []
    for severity in SIGNS:
        count = sum(problem.severity == severity for problem in problems)
        if count:
            parts += [", " if parts else "", sign(severity)]
            parts.append(f" {count} {severity}{'s' if count > 1 else ''}")
    return Content.assemble(*parts) if parts else Content("none found")


def capability(gpu: Gpu) -> str:
    """``8.9``, or ``?``."""
    return ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "?"


def mig_in_short(gpu: Gpu) -> str:
    """Whether MIG is on, and its slices counted."""
    if gpu.mig:
        return f"{len(gpu.mig)} slice{'s' if len(gpu.mig) > 1 else ''}"
    return {True: "no slice", False: "off", None: "?"}[gpu.mig_enabled]


def _name_width(width: int) -> int:
    return max(width - _FIXED, 10)


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"


def _gpu(gpu: Gpu, picked: bool, usable: bool, width: int) -> Content:
    name = Content(one_line(gpu.name or "unknown name"))
    heat = "?" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f} °C"
    troubled = usable and any(problem.severity != "note" for problem in gpu.problems)
    mark = Content.styled("[x]", "bold") if picked else Content("[ ]")
    if not usable:
        mark = Content(" ✗ ")
    row = Content.assemble(
        mark,
        Content.styled("!", "bold") if troubled else " ",
        f"{f'GPU {gpu.index}':<7}",
        name.truncate(_name_width(width), ellipsis=True, pad=True),
        f" {_gib(gpu.total_bytes):>9} {_gib(gpu.free_bytes):>9}  "
        f"{capability(gpu):<5}{heat:<7}{mig_in_short(gpu)}",
    )
    return (row if usable else row.stylize("dim")).truncate(width, ellipsis=True)


def _cpu(report: HardwareReport, picked: bool, width: int) -> Content:
    host = report.host
    mark = "[x]" if picked else "[ ]" if report.gpus else "   "
    limit = f", {one_line(host.ram_limit)}" if host.ram_limit else ""
    ram = (
        f"  {format_bytes(host.ram_available_bytes)} of {format_bytes(host.ram_total_bytes)} "
        f"RAM free{limit}"
    )
    room = max(width - 11 - len(ram), 3)
    name = Content(one_line(host.cpu_name or "unknown CPU"))
    return Content.assemble(
        Content.styled(mark, "bold" if picked else ""),
        " CPU    ",
        name.truncate(room, ellipsis=True, pad=True),
        ram,
    ).truncate(width, ellipsis=True)


def _disks(report: HardwareReport) -> Content:
    """Folders on the same disk are told together."""
    told: dict[tuple[object, ...], list[str]] = {}
    for disk in report.host.disks:
        key = (disk.device, disk.total_bytes, disk.free_bytes)
        told.setdefault(key, []).append("everything" if disk.purpose == "any" else disk.purpose)
    if not told:
        return Content("unknown")
    parts = [
        f"{format_bytes(free) if isinstance(free, int) else 'unknown'} free for {', '.join(names)}"
        for (_, _, free), names in told.items()
    ]
    return Content("; ".join(parts))


def _engines(engines: Sequence[EngineStatus] | None) -> Content:
    if engines is None:
        return Content("probing...")
    if not engines:
        return Content("unknown")
    there = [engine for engine in engines if engine.state != "absent"]
    if not there:
        return Content("none made yet")
    words = []
    for engine in there:
        state = "" if engine.state == "installed" else f" ({engine.state})"
        version = engine.versions.get(engine.spec.main_package, "")
        words.append(f"{one_line(f'{engine.spec.name} {version}')}{state}")
    return Content(", ".join(words))


def _labelled(label: str, told: Content, width: int) -> Content:
    row = Content.assemble(f"    {label:<9}", told)
    return row.truncate(width, ellipsis=True)
