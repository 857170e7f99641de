"""Earlier runs, by their records. A record is read once: its summary is kept until the file changes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from quantui.domain.run_state import RunState, reduce
from quantui.domain.run_summary import Figure, RunSummary, StepSummary, summarize
from quantui.runtime.hosted_run import read_owner
from quantui.runtime.paths import cache_dir, runs_dir
from quantui.runtime.run_record import EVENTS, read_event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FORMAT = 2
_MEMORY = b'{"type": "memory"'
_PASSED_OVER = (b'{"type": "step.progress"', b'{"type": "step.phase"', b'{"type": "log"')
"""As the recorder begins such lines; one that is written otherwise is parsed as any other."""
_CARDS = re.compile(rb"\[(\d{1,4}), (\d{1,18}), \d{1,18}\]")
"""Index, bytes in use and in all of a GPU, in a sample of memory."""
_Stamp = tuple[int, int]
"""Nanoseconds and bytes of a record: it is only ever appended to."""


def read_history() -> Iterator[RunSummary]:
    """Every run, the newest first; damaged records give what can be read of them, or nothing.

    1,000 runs take some tenths of a second, the first time as long as their records take to read.
    """
    kept = _kept()
    fresh: dict[str, tuple[_Stamp, RunSummary]] = {}
    changed = whole = False
    try:
        for folder in _folders():
            try:
                stat = (folder / EVENTS).stat()
            except OSError:
                continue
            stamp = (stat.st_mtime_ns, stat.st_size)
            known = kept.get(folder.name)
            if known is not None and known[0] == stamp:
                summary = known[1]
            else:
                summary = _read(folder)
                changed = True
            fresh[folder.name] = (stamp, summary)
            # A place may have been moved, and whether a run lives is not in its record.
            summary = replace(summary, directory=str(folder))
            if summary.outcome == "cut off" and read_owner(folder) is not None:
                summary = replace(summary, outcome="under way")
            yield summary
        whole = True
    finally:
        if changed:
            # Whoever stopped asking did not see the older ones, which are kept then.
            _keep(fresh if whole else {**kept, **fresh})


def _folders() -> list[Path]:
    """Folders of runs, by their names the newest first."""
    try:
        with os.scandir(runs_dir()) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [runs_dir() / name for name in sorted(names, reverse=True)]


def _read(folder: Path) -> RunSummary:
    try:
        return summarize(folder.name, str(folder), _state(folder / EVENTS))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        # Events of the right names whose values are not what they must be.
        return RunSummary(folder.name, str(folder), "cut off")


def _state(record: Path) -> RunState:
    """The state at the end of a record, without what a summary does not tell: most lines are not even parsed."""
    state = RunState()
    peaks: dict[int, int] = {}
    with record.open("rb") as lines:
        for line in lines:
            if line.startswith(_MEMORY):
                for index, used in _CARDS.findall(line):
                    peaks[int(index)] = max(peaks.get(int(index), 0), int(used))
            elif not line.startswith(_PASSED_OVER):
                event = read_event(line)
                state = state if event is None else reduce(event, state)
    return replace(state, peak_gpu_bytes=tuple(sorted(peaks.items())))


def _cache_file() -> Path:
    return cache_dir() / "history.json"


def _kept() -> dict[str, tuple[_Stamp, RunSummary]]:
    try:
        told = json.loads(_cache_file().read_text(encoding="utf-8"))
        if told["format"] != _FORMAT:
            return {}
        return {
            name: ((stamp[0], stamp[1]), _summary(body))
            for name, (stamp, body) in told["runs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return {}


def _summary(body: dict[str, Any]) -> RunSummary:
    """What :func:`_keep` wrote."""
    return RunSummary(
        **{
            **body,
            "adapters": tuple(body["adapters"]),
            "notices": tuple(body["notices"]),
            "made": tuple(body["made"]),
            "steps": tuple(StepSummary(**step) for step in body["steps"]),
            "figures": tuple(Figure(**figure) for figure in body["figures"]),
        }
    )


def _keep(runs: dict[str, tuple[_Stamp, RunSummary]]) -> None:
    """Write the summaries; a disk that is full costs only the time to read again."""
    told = {
        "format": _FORMAT,
        "runs": {name: [stamp, asdict(body)] for name, (stamp, body) in runs.items()},
    }
    file = _cache_file()
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(file)
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
