"""Run one program and say what it took: wall and CPU time, memory, disk reads, and a worker's phases."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Phase(NamedTuple):
    """A stage of a worker, as its events tell: seconds, and the peak RSS in bytes until its end."""

    name: str
    wall_s: float
    cpu_s: float
    peak_rss: int


@dataclass(frozen=True)
class Run:
    """One program from its start to its end.

    CPU time is user + system of the process and all it waited for; ``peak_rss`` is in bytes, of the
    largest process among them (``wait4``), which is that of the tree where there is one process.
    """

    wall_s: float
    cpu_s: float
    peak_rss: int
    disk_read: int
    """Bytes that came from the disk and not from the page cache."""
    phases: tuple[Phase, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)


class FailedRunError(Exception):
    """A program that ended otherwise than well, in one line."""


class _Mark(NamedTuple):
    name: str
    at: float
    cpu_s: float
    peak_rss: int


class _Events(threading.Thread):
    """Reads a worker's events as they come, and looks at the process whenever a phase begins."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self.pid = 0
        self.marks: list[_Mark] = []
        self.last: dict[str, Any] = {}

    def run(self) -> None:
        """Read until the worker has gone."""
        with os.fdopen(self._descriptor, encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "phase":
                    self._mark(event["name"])
                elif event["type"] in ("result", "error"):
                    self._mark("end")
                    self.last = event

    def _mark(self, name: str) -> None:
        cpu_s, peak = 0.0, 0
        with suppress(OSError, IndexError):
            folder = Path(f"/proc/{self.pid}")
            stat = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            cpu_s = (int(stat[11]) + int(stat[12])) / _TICKS
            status = (folder / "status").read_text(encoding="ascii", errors="replace")
            peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        self.marks.append(_Mark(name, time.monotonic(), cpu_s, peak))

    def phases(self, began: _Mark, ended: _Mark) -> tuple[Phase, ...]:
        """From mark to mark; "start" is what comes before the first."""
        marks = [began, *self.marks, ended]
        return tuple(
            Phase(a.name, b.at - a.at, max(0.0, b.cpu_s - a.cpu_s), b.peak_rss)
            for a, b in itertools.pairwise(marks)
        )


def run(command: list[str], env: dict[str, str], log: Path) -> Run:
    """Run ``command`` to its end; what it prints goes to ``log``.

    The peak RSS a child begins with is the caller's own, so the caller has to stay smaller than
    what it measures: this process loads the standard library alone.

    Raises:
        FailedRunError: It ended with another status than 0.
    """
    reading, writing = os.pipe()
    events = _Events(reading)
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**env, "QUANTUI_EVENTS_FD": str(writing)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writing,),
            start_new_session=True,
        )
    os.close(writing)
    events.pid = process.pid
    events.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    events.join()
    if process.returncode:
        raise FailedRunError(_failure(command, process.returncode, events.last, log))
    cpu_s, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    phases: tuple[Phase, ...] = ()
    if events.marks:
        phases = events.phases(_Mark("start", began, 0.0, 0), _Mark("", ended, cpu_s, peak))
    return Run(ended - began, cpu_s, peak, usage.ru_inblock * 512, phases, events.last)


def _failure(command: list[str], code: int, last: dict[str, Any], log: Path) -> str:
    name = next((Path(word).name for word in command[1:] if word.endswith(".py")), command[0])
    if last.get("type") == "error":
        reason = " ".join(part for part in (last["what"], last["why"], last["fix"]) if part)
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "it printed nothing"
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"{name} ended with {how}: {reason}"


def warm(folder: Path) -> None:
    """Read every file once, so that it lies in the page cache as far as memory reaches."""
    memory = memoryview(bytearray(1 << 20))
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(memory):
                    pass


def filesystem(folder: Path) -> str:
    """Type of the filesystem below ``folder``, as /proc/self/mounts names it."""
    kind, longest = "unknown", -1
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, name, *_ = line.split()
        if folder.resolve().is_relative_to(place) and len(place) >= longest:
            kind, longest = name, len(place)
    return kind


def processor() -> str:
    """What /proc/cpuinfo calls the processor, and how many of them this process may use."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [line for line in text.splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else sys.platform
    return f"{len(os.sched_getaffinity(0))} x {name}"
