"""The record of a run: a folder with ``events.jsonl``, a log for each step, and the job files."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import to_dict
from quantui.runtime.paths import runs_dir
from quantui.runtime.process import reap_abandoned
from quantui.runtime.recorded_samples import RecordedSamples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.events import RunEvent


OWNER = "owner.pid"
"""The file that says which process runs a run; it is gone when no process of the run is left."""


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it writes."""

    run_id: str
    path: Path

    @classmethod
    def create(cls) -> RunFolder:
        """A new folder, named by the time and a random part; only its owner may read it."""
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        path = runs_dir() / run_id
        try:
            path.mkdir(parents=True, mode=0o700)
            # Renamed into place: another quantui that looks for abandoned runs reads it whole.
            partial = path / "owner.pid.partial"
            partial.write_text(owner_mark(os.getpid()), encoding="utf-8")
            partial.replace(path / OWNER)
        except OSError as error:
            raise QuantuiError(
                "run.no-record",
                f"The run's folder {path} could not be made.",
                str(error),
                "Free space there, or set QUANTUI_HOME to a folder that can be written.",
                ExitCode.DOES_NOT_FIT,
            ) from None
        return cls(run_id, path)

    def log(self, step: str) -> Path:
        """The log of a step: both streams of its program."""
        return self.path / f"{step}.log"

    def write_job(self, step: str, job: dict[str, Any]) -> Path:
        """The worker's job file."""
        path = self.path / f"{step}.job.json"
        path.write_text(json.dumps(job, indent=1), encoding="utf-8")
        return path


class Recorder:
    """Appends events to ``events.jsonl``, a line each, as they happen; memory by :mod:`.recorded_samples`."""

    def __init__(self, folder: RunFolder) -> None:
        self._samples = RecordedSamples()
        self._file: TextIO | None = None
        with contextlib.suppress(OSError):
            self._file = (folder.path / "events.jsonl").open("a", encoding="utf-8", buffering=1)

    def write(self, event: RunEvent) -> None:
        """One line. Log lines are left out: they are in the step's own log."""
        if event.type != "log":
            self._append(self._samples.admit(event))

    def close(self) -> None:
        """Write what was held back, and close the file."""
        self._append(self._samples.rest())
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _append(self, events: Iterable[RunEvent]) -> None:
        for event in events:
            # A full disk must not stop the run from being stopped: the record then has a gap.
            with contextlib.suppress(OSError):
                if self._file is not None:
                    self._file.write(json.dumps(to_dict(event)) + "\n")


def release(folder: RunFolder) -> None:
    """Say that the run's processes are gone; see :func:`clear_abandoned`."""
    (folder.path / OWNER).unlink(missing_ok=True)


def clear_abandoned() -> list[tuple[str, int]]:
    """Kill what runs left behind whose quantui and keeper both died; (run id, processes) of each.

    A run that still has its ``owner.pid`` was not released; when that process is gone, or its number
    belongs to another one now, whatever carries the run's mark is killed.
    """
    cleared: list[tuple[str, int]] = []
    for path in runs_dir().glob(f"*/{OWNER}"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            owner = path.read_text(encoding="utf-8")
            if not owner_lives(owner):
                killed = reap_abandoned(path.parent.name)
                path.unlink(missing_ok=True)
                if killed:
                    cleared.append((path.parent.name, killed))
    return cleared


def owner_lives(owner: str) -> bool:
    """Whether the process that ``owner`` (the text of an ``owner.pid``) names still lives.

    Raises ValueError or IndexError for a text that names none.
    """
    return owner_mark(int(owner.split(maxsplit=1)[0])) == owner


def owner_mark(pid: int) -> str:
    """``PID STARTTIME``: the start time, in clock ticks since boot, tells a reused number.

    A process that has ended is gone also while its parent has not asked for its status.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{pid} gone"
    fields = stat.rpartition(")")[2].split()
    return f"{pid} gone" if fields[0] in "ZX" else f"{pid} {fields[19]}"
