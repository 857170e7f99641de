"""From a log to a cause: the first exception of the innermost process, and what is known about it.

vLLM's processes report upwards: a Worker fails, EngineCore says "Engine core initialization failed", the API
server says it again. The root cause is the first exception in the innermost process that has one; the outer
ones are wrappers.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable  # noqa: TC003 - part of the public signature
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.load_log import parse_line

_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Failed)(?::|$)"
)
_WRAPPERS = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineDeadError",
    "Engine process failed to start",
    "KeyboardInterrupt",
    "SystemExit",
    "CancelledError",
)
_DEPTH = ("Worker", "EngineCore", "APIServer", "")


@dataclass(frozen=True)
class RootCause:
    """The line that names the exception, the process it is from, and the message lines that follow it."""

    process: str
    text: str
    lines: tuple[str, ...]


def root_cause(lines: Iterable[str]) -> RootCause | None:
    """The first exception in the innermost process, wrappers left out; None when there is none."""
    found: dict[str, RootCause] = {}
    collecting: dict[str, list[str]] = {}
    for line in lines:
        record = parse_line(line.rstrip())
        kind = next((name for name in _DEPTH if name and name in record.process), "")
        message = record.message.strip()
        if kind in collecting:
            # A pydantic or multi-line message goes on until the next traceback or timestamped record.
            if message and not message.startswith(("Traceback", "File ", "During", "The above")):
                if len(collecting[kind]) < 6:
                    collecting[kind].append(message)
                continue
            _close(found, collecting, kind)
        if _EXCEPTION.match(message) and kind not in found:
            if any(wrapper in message for wrapper in _WRAPPERS) or "Warning" in message:
                continue
            collecting[kind] = [message]
    for kind in list(collecting):
        _close(found, collecting, kind)
    return next((found[kind] for kind in _DEPTH if kind in found), None)


def _close(found: dict[str, RootCause], collecting: dict[str, list[str]], kind: str) -> None:
    lines = collecting.pop(kind)
    found[kind] = RootCause(kind or "process", lines[0], tuple(lines))


def _complaints(lines: list[str]) -> list[str]:
    """The last lines that may tell a failure without an exception: errors, and what nobody signed.

    vLLM repeats its whole configuration at INFO level, where every option's name would match.
    """
    records = [parse_line(line.rstrip()) for line in lines]
    return [record.message for record in records if record.level in {"", "ERROR", "CRITICAL"}][-60:]


@cache
def _failures() -> list[dict[str, Any]]:
    text = resources.files("quantui.data").joinpath("failures.toml").read_text(encoding="utf-8")
    failures: list[dict[str, Any]] = tomllib.loads(text)["failure"]
    return failures


def diagnose(lines: list[str], *, exit_code: int | None, log: str) -> QuantuiError:
    """The error a person sees when the server failed: cause, why, fix, and the path of the log.

    ``exit_code`` is the process's (negative: a signal), None while it runs. A message no entry of
    failures.toml knows is quoted as it is.
    """
    cause = root_cause(lines)
    text = " ".join(cause.lines) if cause else "\n".join(_complaints(lines))
    detail = ((f"{cause.process}: {cause.text[:300]}",) if cause else ()) + (f"log: {log}",)
    for failure in _failures():
        if re.search(failure["pattern"], text):
            return QuantuiError(
                failure["code"],
                failure["what"],
                failure["why"],
                failure["fix"],
                ExitCode(failure["exit_code"]),
                detail,
            )
    if cause:
        what, why = "vLLM failed to start.", cause.text[:300]
    elif exit_code is not None and exit_code < 0:
        what = f"vLLM was killed by signal {-exit_code}."
        why = (
            "The kernel's out-of-memory killer, or somebody, killed it."
            if exit_code == -9
            else "It crashed in native code."
        )
    else:
        what = f"vLLM ended with exit status {exit_code} and no error in its log."
        why = "An engine process died; its own message may be higher up in the log."
    fix = "Read the log; search its message in vLLM's issues."
    return QuantuiError("serve.failed", what, why, fix, ExitCode.ENGINE, detail)
