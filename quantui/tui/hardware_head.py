"""The lines above the devices of the Hardware step: what is offered, what is probed, whose machine it is. Pure."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from quantui.domain.hardware import HardwareReport
    from quantui.runtime.last_profile import LastProfile

_TURNS = "|/-\\"
PROBING = {
    "hardware": "probing hardware: NVML, CPU, memory, disks...",
    "engines": "probing engines: each is asked what it has...",
}


def offers(profile: LastProfile | None, background: int) -> list[Content]:
    """The last profile, to be replayed, and runs that live without this wizard; empty where there is neither."""
    lines: list[Content] = []
    if profile is not None:
        when = f"{datetime.fromtimestamp(profile.saved_at):%d %b %Y, %H:%M}"
        told = f"({one_line(profile.title)}, {when})"
        lines.append(_offer("p", f"replay {one_line(profile.path.name)}", told))
    if background:
        runs = "a run lives" if background == 1 else f"{background} runs live"
        lines.append(_offer("b", f"{runs} in the background", ""))
    return lines


def probing(what: str, turn: int) -> Content:
    """What is being looked at, with a mark that turns."""
    return Content(f"{_TURNS[turn % len(_TURNS)]} {PROBING[what]}")


def machine(report: HardwareReport, described_by: str | None) -> Content:
    """Whose machine it is, and the driver."""
    if report.simulated or described_by:
        file = one_line(Path(described_by or "simulated").name)
        told = f"Described by {file}: not this machine, nothing can be run on it."
        return Content.styled(told, "$text-warning")
    if not report.gpus:
        return Content("No GPU: what that means stands below.")
    cuda = one_line(report.cuda_version or "unknown")
    return Content(f"driver {one_line(report.driver_version or 'unknown')}, CUDA up to {cuda}")


def _offer(key: str, words: str, told: str) -> Content:
    return Content.assemble(
        Content.styled(f" {key} ", "bold reverse"),
        f" {words} ",
        Content.styled(told, "$text-muted"),
    )
