"""The disk that a plan needs, by file system, before hours of work end on a full one."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.room import room_fix, room_lines
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.plan import DownloadStep, InstallStep, MergeStep, QuantizeStep
from quantui.domain.units import RESERVE_BYTES
from quantui.runtime import paths
from quantui.runtime.artifacts import allocated_bytes
from quantui.runtime.caches.room import device_of, told_what_could_go, what_could_go

if TYPE_CHECKING:
    from quantui.domain.plan import Plan, Step

_UNKNOWN_NEED = 1024**3
"""Bytes to ask for where a step that filled the disk does not know what it writes: caches and logs of a server."""

_DISK_CODES = frozenset({"quantize.not-enough-disk", "serve.disk-full"})


@dataclass(frozen=True)
class DiskOfPlan:
    """A file system that steps write to: a folder on it, what each writes (title, bytes), bytes free there.

    ``needed``: all of it and a reserve.
    """

    folder: Path
    writes: tuple[tuple[str, int], ...]
    free: int

    @property
    def needed(self) -> int:
        """Bytes that have to be free before the first step."""
        return sum(size for _, size in self.writes) + RESERVE_BYTES

    @property
    def lacks(self) -> bool:
        """Whether it is too little."""
        return self.free < self.needed


def disks_of(plan: Plan, made: frozenset[str] = frozenset()) -> tuple[DiskOfPlan, ...]:
    """Every file system that ``plan`` writes to; ``made``: ids of the steps that a run would pass over.

    What an earlier try left of a step counts as there.
    """
    found: dict[object, DiskOfPlan] = {}
    for step in plan.steps:
        folder = _folder(step)
        size = 0 if step.id in made else _writes(step)
        if folder is None or not size:
            continue
        device = device_of(folder)
        disk = found.get(device) or DiskOfPlan(folder, (), _free(folder))
        writes = (*disk.writes, (step.title, size))
        found[device] = DiskOfPlan(disk.folder, writes, disk.free)
    return tuple(found.values())


def check_room(plan: Plan, made: frozenset[str]) -> None:
    """Raise ``disk.too-little`` (exit code 3) when a disk is too small for all that a run is to write to it.

    A step that begins at once and is alone on its disk refuses by itself, and knows more.
    """
    first = next((step for step in plan.steps if _writes(step) and step.id not in made), None)
    for disk in disks_of(plan, made):
        alone = len(disk.writes) == 1 and first is not None and disk.writes[0][0] == first.title
        if disk.lacks and not alone:
            raise too_little(disk)


def room_notes(plan: Plan, made: frozenset[str]) -> tuple[str, ...]:
    """Lines for whoever looks at a plan: of each disk that lacks room, what could go and how."""
    notes: list[str] = []
    for disk in disks_of(plan, made):
        if disk.lacks:
            room = what_could_go(disk.folder, disk.needed)
            notes += [*room_lines(room, time.time()), room_fix(room)]
    return tuple(filter(None, notes))


def too_little(disk: DiskOfPlan) -> QuantuiError:
    """The error of a disk that lacks room, with what each step writes and what could go."""
    parts = ", ".join(f"{title} {format_bytes(size)}" for title, size in disk.writes)
    error = QuantuiError(
        "disk.too-little",
        f"The disk of {disk.folder} has too little room for this run.",
        f"It writes {parts}; with a reserve {format_bytes(disk.needed)} are needed and "
        f"{format_bytes(disk.free)} are free.",
        "Free space there, or set QUANTUI_HOME or HF_HOME to a folder on a larger disk.",
        ExitCode.DOES_NOT_FIT,
    )
    return told_what_could_go(error, disk.folder, disk.needed)


def with_what_could_go(error: QuantuiError, step: Step) -> QuantuiError:
    """``error`` of a step, and if it is a disk's, what could go on that disk."""
    if not error.code.startswith("disk.") and error.code not in _DISK_CODES:
        return error
    folder = _folder(step) or paths.runs_dir()
    return told_what_could_go(error, folder, (_writes(step) or _UNKNOWN_NEED) + RESERVE_BYTES)


def told_of_plan(error: QuantuiError, plan: Plan) -> QuantuiError:
    """``error`` of a plan that a disk cannot hold, with what could go there."""
    for disk in disks_of(plan):
        if disk.lacks:
            error = told_what_could_go(error, disk.folder, disk.needed)
    return error


def _folder(step: Step) -> Path | None:
    """Where a step writes what is large; None: nowhere that is known."""
    if isinstance(step, InstallStep):
        return paths.engines_dir()
    if isinstance(step, DownloadStep):
        from quantui.runtime.probe_host import hub_cache

        given = step.job.get("cache_dir")
        return Path(given) if isinstance(given, str) else hub_cache()
    if isinstance(step, MergeStep | QuantizeStep):
        return Path(step.path).parent
    return None


def _writes(step: Step) -> int:
    """Bytes that a step has still to write."""
    if isinstance(step, InstallStep):
        return step.disk_bytes
    if isinstance(step, DownloadStep):
        return max(0, step.bytes - _begun(step))
    if isinstance(step, MergeStep | QuantizeStep):
        place = Path(step.path)
        # What is staged is gone on from or removed first, and so is what an earlier proof refused.
        left = [place.with_name(f"{place.name}.partial"), place.with_name(f"{place.name}.broken")]
        if not step.to_folder:
            left += place.parent.glob(f"{place.name}.staged*")
        return max(0, step.bytes - sum(map(allocated_bytes, left)))
    return 0


def _begun(step: DownloadStep) -> int:
    """Bytes of files that an interrupted download left, which it goes on from."""
    folder = _folder(step)
    repo = step.job.get("repo_id")
    if folder is None or not isinstance(repo, str):
        return 0
    total = 0
    for part in (folder / f"models--{repo.replace('/', '--')}" / "blobs").glob("*.incomplete"):
        with contextlib.suppress(OSError):
            total += part.stat().st_blocks * 512
    return total


def _free(folder: Path) -> int:
    for there in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(there).free
    return 0
