"""Reading vLLM's log while it loads: phases, figures and shard progress, a line at a time."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_PREFIX = re.compile(
    r"^(?:\((?P<process>[^()]*?) pid=(?P<pid>\d+)\) )?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] )?"
)
"""``(EngineCore pid=12) INFO 11-20 15:40:18 [core.py:133] message``: both parts may be missing."""

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
"""vLLM colours its log when VLLM_LOGGING_COLOR=1 is in the environment."""


@dataclass(frozen=True)
class LogRecord:
    """One line taken apart; ``process`` is "" for what no vLLM process signed."""

    process: str
    level: str
    message: str


@dataclass(frozen=True)
class Phase:
    """The load has reached a stage."""

    name: str
    title: str


@dataclass(frozen=True)
class Figure:
    """A number that vLLM tells of itself; ``of_workers``: which counts when each tells its own."""

    name: str
    title: str
    unit: str
    value: float
    of_workers: str = ""

    def among(self, before: float | None) -> float:
        """The value that stands after another worker told ``before``."""
        if before is None or not self.of_workers:
            return self.value
        return (max if self.of_workers == "largest" else min)(before, self.value)


@dataclass(frozen=True)
class ShardProgress:
    """Weight shards read so far."""

    done: int
    total: int


@cache
def _data() -> dict[str, Any]:
    # Package data, read once: the one file access that the domain layer needs to know its facts.
    text = resources.files("quantui.data").joinpath("vllm_log.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def parse_line(line: str) -> LogRecord:
    """Split a log line into the process that wrote it, its level and its message."""
    line = _COLOURS.sub("", line)
    match = _PREFIX.match(line)
    assert match is not None  # every part of the pattern is optional
    return LogRecord(match["process"] or "", match["level"] or "", line[match.end() :])


def phase_of(message: str) -> Phase | None:
    """The load phase a message announces, if any."""
    for phase in _data()["phase"]:
        if any(text in message for text in phase["contains"]):
            return Phase(phase["name"], phase["title"])
    return None


def figures_of(message: str) -> tuple[Figure, ...]:
    """The figures a message carries."""
    found = []
    for figure in _data()["figure"]:
        if match := re.search(figure["pattern"], message):
            found.append(
                Figure(
                    figure["name"],
                    figure["title"],
                    figure["unit"],
                    float(match[1].replace(",", "")),
                    figure.get("of_workers", ""),
                )
            )
    return tuple(found)


def shards_of(message: str) -> ShardProgress | None:
    """The state of the shard bar in a message, if any."""
    match = re.search(_data()["progress"]["shards"], message)
    return ShardProgress(int(match[1]), int(match[2])) if match else None
