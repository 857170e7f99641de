"""``quantui doctor``: hardware, engines and caches, and what is wrong with each.

Exit codes: 0 also when problems were found, because most leave something that works; 3
(``DOES_NOT_FIT``) when nothing can work here, which is a machine that does not run Linux.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.cli.output import console, print_json
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.hardware import Problem
from quantui.domain.hardware_checks import usable_gpus
from quantui.domain.terminal_text import sanitize
from quantui.runtime.engine_advice import engine_fix, engine_problems, for_this_machine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from rich.console import RenderableType

    from quantui.domain.hardware import Gpu, HardwareReport, Host
    from quantui.runtime.caches.area_sizes import AreaSize
    from quantui.runtime.engines import EngineStatus

_BUDGET_S = 10.0
"""The sizes are read for the report in any case; only who uses what is looked up besides."""

_STYLES = {"note": "dim", "warning": "yellow", "error": "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.epilog = "Exit code: 0 also when problems were found; 3 when nothing can work here."


def run(args: argparse.Namespace) -> int:
    """Look, print, and give the exit code described in the head of this module."""
    from quantui.runtime.caches.area_sizes import area_sizes
    from quantui.runtime.caches.budget import BudgetWatch
    from quantui.runtime.probe import probe_hardware

    budget = BudgetWatch()
    budget.begin()
    report = probe_hardware()
    engines, engines_unread = _engines()
    caches = area_sizes()
    problems = (
        *report.all_problems(),
        *engines_unread,
        *engine_problems(engines, report),
        *cache_problems(caches),
        *_over_budget(budget.hint(_BUDGET_S)),
    )
    if args.json:
        print_json(document(report, engines, caches))
    else:
        out = console()
        for part in (
            *_system(report.host),
            *gpu_section(report),
            *host_section(report.host),
            *_engine_section(engines, report),
            *_cache_section(caches),
            *_problem_section(problems),
        ):
            out.print(part)
    hopeless = any(problem.severity == "error" for problem in report.all_problems())
    return ExitCode.DOES_NOT_FIT if hopeless else ExitCode.OK


def document(
    report: HardwareReport, engines: Iterable[EngineStatus], caches: Iterable[AreaSize]
) -> dict[str, Any]:
    """The ``--json`` document; ``HardwareReport.from_dict`` reads it."""
    return {
        "quantui_version": __version__,
        **report.to_dict(),
        "engines": [{**engine.to_dict(), "fix": engine_fix(engine)} for engine in engines],
        "caches": [asdict(cache) for cache in caches],
    }


def _engines() -> tuple[list[EngineStatus], tuple[Problem, ...]]:
    from quantui.runtime.engines import list_engines

    try:
        return list_engines(), ()
    except QuantuiError as error:
        return [], (Problem(error.code, error.what, error.why, error.fix),)


def cache_problems(caches: Iterable[AreaSize]) -> tuple[Problem, ...]:
    """What is wrong with the folders quantui reads and writes."""
    return tuple(
        Problem("cache.problem", f"{cache.name} ({cache.path})", cache.problem, cache.fix)
        for cache in caches
        if cache.problem
    )


def _over_budget(hint: str) -> tuple[Problem, ...]:
    return (Problem("cache.over-budget", f"{hint}.", severity="note"),) if hint else ()


def _system(host: Host) -> Iterable[RenderableType]:
    parts = (
        f"quantui {__version__}",
        f"{host.platform or 'unknown platform'} {host.kernel or ''}".strip(),
        f"Python {host.python}" if host.python else "",
        f"glibc {host.glibc}" if host.glibc else "",
    )
    yield sanitize(", ".join(part for part in parts if part))


def gpu_section(report: HardwareReport) -> Iterable[RenderableType]:
    """A row a GPU; below them their MIG devices, and who uses them."""
    yield _title("GPUs", f"CUDA up to {report.cuda_version}" if report.cuda_version else "")
    if not report.gpus:
        yield f"  {'unreadable' if _unread(report) else 'none'}: {_without_gpu(report)}"
        return
    table = _grid("#", "name", "total", "free", "cc", "driver", "temp", "MIG")
    for gpu in report.gpus:
        capability = ".".join(map(str, gpu.compute_capability or ())) or "?"
        heat = "?" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f} °C"
        table.add_row(
            "",
            str(gpu.index),
            _shown(gpu.name),
            format_bytes(gpu.total_bytes),
            format_bytes(gpu.free_bytes),
            capability,
            _shown(report.driver_version),
            heat,
            {True: "on", False: "off", None: "?"}[gpu.mig_enabled],
        )
    yield table
    if not usable_gpus(report):
        yield f"  vLLM can use none of them: {_without_gpu(report)}"
    details = _grid()
    for gpu in report.gpus:
        for line in _gpu_details(gpu):
            details.add_row("", f"GPU {gpu.index}", line)
    if details.row_count:
        yield details
    if report.cuda_visible_devices is not None:
        yield f"  CUDA_VISIBLE_DEVICES={sanitize(report.cuda_visible_devices)}"


def _gpu_details(gpu: Gpu) -> Iterable[str]:
    for part in gpu.mig or ():
        yield sanitize(
            f"MIG {part.profile or '?'}: {format_bytes(part.total_bytes)}, {format_bytes(part.free_bytes)} free, "
            f"{part.uuid or 'unknown UUID'}"
        )
    for process in gpu.processes or ():
        yield (
            f"used by {_shown(process.name)} (PID {process.pid}): {format_bytes(process.used_bytes)}"
        )


def _without_gpu(report: HardwareReport) -> str:
    if any(problem.code == "cpu.no-avx2" for problem in report.problems):
        return "and its CPU engine needs a newer CPU"
    return "vLLM's CPU engine is used"


def _unread(report: HardwareReport) -> bool:
    return any(
        problem.code.startswith("nvml.") and problem.severity != "note"
        for problem in report.problems
    )


def host_section(host: Host) -> Iterable[RenderableType]:
    """CPU, RAM, and the disks below the folders quantui writes to."""
    yield _title("CPU, memory, disks")
    table = _grid()
    cores = f"{_shown(host.physical_cores)} cores, {_shown(host.logical_cores)} threads"
    if host.usable_cores is not None and host.usable_cores != host.logical_cores:
        cores += f", {host.usable_cores} usable"
    table.add_row("", "CPU", f"{_shown(host.cpu_name)}; {cores}")
    if host.cpu_flags is not None:
        table.add_row("", "", " ".join(map(sanitize, host.cpu_flags)) or "no known flags")
    limit = f" (limited by {sanitize(host.ram_limit)})" if host.ram_limit else ""
    table.add_row(
        "",
        "RAM",
        f"{format_bytes(host.ram_total_bytes)}{limit}, {format_bytes(host.ram_available_bytes)} available",
    )
    for disk in host.disks:
        table.add_row(
            "",
            f"disk: {disk.purpose}",
            f"{format_bytes(disk.free_bytes)} free of {format_bytes(disk.total_bytes)}, {_shown(disk.device)}",
        )
    yield table


def _engine_section(
    engines: list[EngineStatus], report: HardwareReport
) -> Iterable[RenderableType]:
    yield _title("Engines")
    table = _grid()
    for engine in for_this_machine(engines, report):
        versions = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
        table.add_row(
            "", sanitize(engine.spec.name), engine.state, sanitize(versions or engine.spec.title)
        )
    yield table if engines else "  unknown"


def _cache_section(caches: tuple[AreaSize, ...]) -> Iterable[RenderableType]:
    yield _title("Caches")
    table = _grid("name", "size", "entries", "path")
    for cache in caches:
        missing = cache.bytes_on_disk is None
        size = "-" if missing else format_bytes(cache.bytes_on_disk)
        entries = "-" if cache.entries is None else str(cache.entries)
        table.add_row("", cache.name, size, entries, sanitize(cache.path))
    yield table


def _problem_section(problems: tuple[Problem, ...]) -> Iterable[RenderableType]:
    from rich.text import Text

    yield _title("Problems")
    if not problems:
        yield "  none found"
        return
    table = _grid()
    for problem in problems:
        label = Text(problem.severity, style=_STYLES.get(problem.severity, ""))
        table.add_row("", label, sanitize(problem.what))
        for name, text in (("why", problem.why), ("fix", problem.fix)):
            if text:
                table.add_row("", Text(name, style="dim"), sanitize(text))
    yield table


def _title(text: str, detail: str = "") -> RenderableType:
    from rich.text import Text

    return Text.assemble("\n", (text, "bold"), f"  {sanitize(detail)}" if detail else "")


def _grid(*headers: str) -> Any:  # noqa: ANN401 - rich is imported when something is printed
    """A table without lines, indented by two; long cells go on in their own column."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(headers))
    table.add_column("", width=0)
    for header in headers:
        table.add_column(header, overflow="fold", header_style="dim")
    return table


def _shown(value: str | int | None) -> str:
    return "unknown" if value is None else sanitize(str(value))
