"""What the Hardware step tells of the highlighted row, in full: nothing of it is cut. Pure, from the report."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.explained_row import Row
from quantui.domain.formatting import format_bytes
from quantui.domain.hardware_checks import usable_gpus
from quantui.domain.terminal_text import one_line
from quantui.tui.device_rows import CPU, DISKS, ENGINES, PROBLEMS, SIGNS, capability

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from quantui.domain.hardware import Gpu, HardwareReport, Problem
    from quantui.runtime.engines import EngineStatus

_LABEL = 13
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Detail:
    """A line of the details: a label (may be empty) and what it says; ``style`` is the text's."""

    label: str
    text: str
    style: str = ""


def laid_out(lines: Sequence[Detail], width: int) -> Content:
    """The details in ``width`` columns; what a line has no room for goes on below its own text."""
    parts: list[Content] = []
    for line in lines:
        indent = max(_LABEL, len(line.label) + 1) if line.label else _LABEL
        wrapped = textwrap.wrap(line.text, max(width - indent, 20)) or [""]
        for number, text in enumerate(wrapped):
            label = line.label if number == 0 else ""
            parts.append(
                Content.assemble(
                    Content.styled(f"{label:<{indent}}", "$text-muted"),
                    Content.styled(text, line.style),
                )
            )
    return Content("\n").join(parts)


def details(
    name: str,
    report: HardwareReport,
    engines: Sequence[EngineStatus] | None,
    problems: Sequence[Problem],
) -> tuple[Detail, ...]:
    """Everything known about the row called ``name``."""
    if name == CPU:
        lines = _cpu(report)
    elif name == DISKS:
        lines = _disks(report)
    elif name == ENGINES:
        lines = _engines(engines)
    elif name == PROBLEMS:
        lines = _problems(problems)
    else:
        gpus = [gpu for gpu in report.gpus if f"gpu{gpu.index}" == name]
        lines = _gpu(gpus[0], report) if gpus else iter(())
    return tuple(lines)


def load_words() -> None:
    """Load what the details of a machine without a GPU are told from, so that the interface need not wait for it."""
    from quantui.domain.methods import methods

    methods()


def sources(report: HardwareReport, described_by: str | None) -> tuple[Row, ...]:
    """Whose word each figure of the step is."""
    if report.simulated or described_by:
        whose = f"the description{f' {one_line(described_by)}' if described_by else ''}"
        return (Row("everything about this machine", "described, not measured", "", whose),)
    limit = report.host.ram_limit
    return (
        Row(
            "GPU memory",
            "measured",
            "total, used, free and what driver and firmware reserve; of the whole card, all processes",
            "NVML, nvmlDeviceGetMemoryInfo_v2 (the first version with older drivers)",
        ),
        Row(
            "who uses a GPU",
            "measured",
            "sizes are unknown in containers and under WSL",
            "NVML, nvmlDeviceGetComputeRunningProcesses and ...GraphicsRunningProcesses",
        ),
        Row(
            "which GPUs can be used",
            "computed",
            "compute capability 7.5 or higher; not lost; with MIG on, a slice that is visible",
            "vLLM 0.32 documentation, installation",
        ),
        Row(
            "RAM",
            "measured",
            f"the limit of {one_line(limit)} counts, file cache that can be dropped counts as free"
            if limit
            else "MemTotal and MemAvailable; no cgroup limits this process",
            "/proc/meminfo" + (" and the cgroup's memory files" if limit else ""),
        ),
        Row("disks", "measured", "what this user may still write", "statvfs of each folder"),
        Row("engines", "looked at", "each one's interpreter is asked what it has", "its packages"),
        Row("the graph", "measured", "ten times a second, of the whole machine", "as above"),
    )


def _gpu(gpu: Gpu, report: HardwareReport) -> Iterator[Detail]:
    yield Detail(f"GPU {gpu.index}", one_line(gpu.name or "unknown name"), "bold")
    if gpu not in usable_gpus(report):
        yield Detail("", "✗ vLLM cannot use it; the reason is below", "$text-error")
    shared = ", shared with the CPU" if gpu.unified_memory else ""
    yield Detail(
        "memory",
        f"{format_bytes(gpu.total_bytes)} total{shared}, {format_bytes(gpu.used_bytes)} used, "
        f"{format_bytes(gpu.free_bytes)} free, {format_bytes(gpu.reserved_bytes)} reserved",
    )
    driver = one_line(report.driver_version or "unknown")
    yield Detail(
        "compute",
        f"capability {capability(gpu)}, driver {driver}, CUDA up to {one_line(report.cuda_version or 'unknown')}",
    )
    sensors = (
        (gpu.temperature_c, "°C"),
        (gpu.power_w, "W"),
        (gpu.utilization_percent, "% busy"),
    )
    now = ", ".join(f"{value:.0f} {unit}" for value, unit in sensors if value is not None)
    yield Detail("now", now or "temperature, power and load are unknown")
    yield from _mig(gpu)
    yield from _users(gpu)
    if report.cuda_visible_devices is not None:
        yield Detail("environment", f"CUDA_VISIBLE_DEVICES={one_line(report.cuda_visible_devices)}")
    yield Detail("UUID", one_line(gpu.uuid or "unknown"))
    yield from _problems(gpu.problems, none="")


def _mig(gpu: Gpu) -> Iterator[Detail]:
    if not gpu.mig:
        state = {True: "on, and no slice is visible", False: "off", None: "unknown"}
        yield Detail("MIG", state[gpu.mig_enabled])
    for part in gpu.mig or ():
        yield Detail(
            "MIG slice",
            f"{one_line(part.profile or '?')}: {format_bytes(part.total_bytes)}, "
            f"{format_bytes(part.free_bytes)} free, {one_line(part.uuid or 'unknown UUID')}",
        )


def _users(gpu: Gpu) -> Iterator[Detail]:
    if gpu.processes is None:
        yield Detail("used by", "unknown")
    elif not gpu.processes:
        yield Detail("used by", "no process that can be seen from here")
    for process in gpu.processes or ():
        pid = "unknown PID" if process.pid is None else f"PID {process.pid}"
        name = one_line(process.name or "unknown process")
        yield Detail("used by", f"{name} ({pid}), {format_bytes(process.used_bytes)}")


def _cpu(report: HardwareReport) -> Iterator[Detail]:
    host = report.host
    if not usable_gpus(report):
        yield from _without_gpu(report)
    yield Detail("CPU", one_line(host.cpu_name or "unknown"), "bold")
    cores = f"{host.physical_cores or 'unknown'} cores, {host.logical_cores or 'unknown'} threads"
    if host.usable_cores is not None and host.usable_cores != host.logical_cores:
        cores += f", {host.usable_cores} of them for this process"
    yield Detail("cores", cores)
    flags = "unknown" if host.cpu_flags is None else " ".join(map(one_line, host.cpu_flags))
    yield Detail("instructions", flags or "none that matter to vLLM")
    limit = f", limited by {one_line(host.ram_limit)}" if host.ram_limit else ""
    yield Detail(
        "RAM",
        f"{format_bytes(host.ram_total_bytes)} total{limit}, "
        f"{format_bytes(host.ram_available_bytes)} free",
    )
    parts = (host.platform, host.kernel, host.glibc and f"glibc {host.glibc}")
    system = ", ".join(one_line(part) for part in parts if part)
    yield Detail("system", system or "unknown")


def _without_gpu(report: HardwareReport) -> Iterator[Detail]:
    """What it means that there is no GPU, or none that vLLM can use."""
    broken = any(problem.code == "cpu.no-avx2" for problem in report.problems)
    found = "none of the GPUs can be used by vLLM" if report.gpus else "no NVIDIA GPU was found"
    if broken:
        yield Detail("no GPU", f"{found}, and this CPU cannot run vLLM's CPU engine", "bold")
        return
    yield Detail("no GPU", f"{found}: vLLM's CPU engine serves", "bold")
    yield Detail(
        "", "Models run from RAM, tens of times slower than on a GPU: small ones are usable."
    )
    from quantui.domain.methods import methods

    titles = [
        method.title for method in methods().values() if method.cpu and method.status == "current"
    ]
    yield Detail("works", " · ".join(titles))
    yield Detail("", "What needs a GPU is shown in the Method step, with the reason.")


def _disks(report: HardwareReport) -> Iterator[Detail]:
    if not report.host.disks:
        yield Detail("disks", "unknown: the description does not tell")
    for disk in report.host.disks:
        label = "everything" if disk.purpose == "any" else disk.purpose
        yield Detail(
            label,
            f"{format_bytes(disk.free_bytes)} free of {format_bytes(disk.total_bytes)}",
            "bold",
        )
        if disk.path or disk.device:
            where = f"{one_line(disk.path or 'unknown path')}, on {one_line(disk.device or 'unknown device')}"
            yield Detail("", where)


def _engines(engines: Sequence[EngineStatus] | None) -> Iterator[Detail]:
    if engines is None:
        yield Detail("probing...", "each engine's interpreter is asked what it has")
        return
    if not engines:
        yield Detail("engines", "unknown")
    there = sorted(engines, key=lambda engine: engine.state == "absent")
    for engine in there:
        spec = engine.spec
        style = "" if engine.state == "absent" else "bold"
        yield Detail(spec.name, f"{engine.state}: {one_line(spec.title)}", style)
        if engine.state == "absent":
            yield Detail(
                "",
                f"{format_bytes(spec.download_bytes)} to download, {format_bytes(spec.disk_bytes)} on "
                f"disk ({one_line(spec.disk_source.partition(':')[0])}); made when a step needs it",
                "$text-muted",
            )
            continue
        versions = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
        yield Detail("", one_line(versions or "no versions known"))
        yield Detail("", f"{format_bytes(engine.bytes_on_disk)} on disk")
        if engine.problem:
            yield Detail("", f"! {one_line(engine.problem)}", "$text-warning")


def _problems(problems: Iterable[Problem], none: str = "none were found") -> Iterator[Detail]:
    found = sorted(problems, key=_urgency)
    if not found and none:
        yield Detail("problems", none)
    for problem in found:
        severity = one_line(problem.severity)
        yield Detail(f"{SIGNS.get(severity, '?')} {severity}", one_line(problem.what), "bold")
        for label, text in (("  why", problem.why), ("  fix", problem.fix)):
            if text:
                yield Detail(label, one_line(text))


def _urgency(problem: Problem) -> int:
    known = problem.severity in _SEVERITIES
    return _SEVERITIES.index(problem.severity) if known else len(_SEVERITIES)
