"""What the steps of a plan cost before anything is run: seconds, disk and downloads, each with its source. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.choosing.costs import MERGE_BYTES_PER_S
from quantui.domain.formatting import format_bytes
from quantui.domain.plan import DownloadStep, InstallStep, MergeStep, QuantizeStep, ServeStep
from quantui.domain.units import RESERVE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.hardware import Disk, Host
    from quantui.domain.plan import Plan, Step

_PURPOSES = {
    "install": "engines",
    "download": "hub cache",
    "merge": "artifacts",
    "quantize": "artifacts",
}
"""The disk that a kind of step writes to, by the hardware report's names."""


@dataclass(frozen=True)
class StepCost:
    """One step. ``seconds`` None: not known, or a connection's affair. ``made``: there is nothing left to do.

    ``text`` says what it does beyond its title, ``source`` whose figures these are.
    """

    id: str
    kind: str
    title: str
    text: str
    seconds: float | None
    disk_bytes: int
    download_bytes: int
    source: str
    made: bool = False


@dataclass(frozen=True)
class DiskNeed:
    """What all steps write to one disk, against what is free there; None: not known."""

    purposes: tuple[str, ...]
    needed_bytes: int
    free_bytes: int | None

    @property
    def lacks(self) -> bool:
        """Whether it surely is too little, a reserve counted."""
        return self.free_bytes is not None and self.needed_bytes + RESERVE_BYTES > self.free_bytes


def step_costs(plan: Plan, made: frozenset[str] = frozenset()) -> tuple[StepCost, ...]:
    """The cost of each step in order; ``made``: ids of the steps that a run would pass over, which cost nothing."""
    return tuple(_cost(step, plan, made=step.id in made) for step in plan.steps)


def known_seconds(costs: Iterable[StepCost]) -> tuple[float, bool]:
    """The known times together, and whether the time of a step that works is not among them."""
    costs = [cost for cost in costs if not cost.made]
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    working = [cost for cost in costs if cost.kind in ("install", "download", "merge", "quantize")]
    return sum(known), any(cost.seconds is None for cost in working)


def disk_needs(costs: Iterable[StepCost], host: Host) -> tuple[DiskNeed, ...]:
    """What is written to each disk; purposes on one disk count together."""
    needs: dict[str, tuple[list[str], int, Disk | None]] = {}
    for cost in costs:
        purpose = _PURPOSES.get(cost.kind)
        if purpose is None or not cost.disk_bytes:
            continue
        disk = host.disk(purpose)
        key = (disk.device or disk.path or disk.purpose) if disk else purpose
        purposes, needed, _ = needs.get(key, ([], 0, None))
        if purpose not in purposes:
            purposes.append(purpose)
        needs[key] = purposes, needed + cost.disk_bytes, disk
    return tuple(
        DiskNeed(tuple(purposes), needed, disk.free_bytes if disk else None)
        for purposes, needed, disk in needs.values()
    )


def _cost(step: Step, plan: Plan, *, made: bool) -> StepCost:
    seconds, disk, fetched, text, source = None, 0, 0, "", ""
    if isinstance(step, InstallStep):
        disk, fetched = step.disk_bytes, step.download_bytes
        text, source = "into a folder of quantui's own", "sizes of the locked wheels"
    elif isinstance(step, DownloadStep):
        disk = fetched = step.bytes
        text, source = "into the Hub cache", "sizes on the Hub"
    elif isinstance(step, MergeStep):
        seconds, disk = step.bytes / MERGE_BYTES_PER_S, step.bytes
        text = f"on {_devices(step.devices)}"
        source = f"weights / {MERGE_BYTES_PER_S / 1e6:.0f} MB/s, quantui's own measurement"
    elif isinstance(step, QuantizeStep):
        flight = step.preflight
        # Without the merged model, which its own step writes.
        disk = step.bytes
        text = f"{step.recipe.text}, on {_devices(step.devices)}; {_memory(step)}"
        source = f"disk: {flight.disk_bytes.formula} ({flight.disk_bytes.source})"
        if flight.seconds is not None:
            seconds = flight.seconds.value
            source = f"time: {flight.seconds.formula} ({flight.seconds.source}); {source}"
    elif isinstance(step, ServeStep):
        text = f"http://{step.host}:{step.port}, as {step.served_name}"
        source = "vLLM reads the weights and measures itself: how long is told by the first run"
    if made:
        return StepCost(step.id, step.kind, step.title, text, 0.0, 0, 0, "made before", made=True)
    return StepCost(step.id, step.kind, step.title, text, seconds, disk, fetched, source)


def _devices(devices: tuple[str, ...]) -> str:
    return ", else ".join(device.replace("cuda:", "GPU ") for device in devices) or "nothing here"


def _memory(step: QuantizeStep) -> str:
    flight = step.preflight
    gpu = "" if flight.gpu_bytes is None else f"{format_bytes(flight.gpu_bytes.value)} of the GPU, "
    return f"{gpu}{format_bytes(flight.ram_bytes.value)} of RAM"
