"""Run one worker to its end and turn what it says into run events."""

from __future__ import annotations

import json
import math
import os
import select
import time
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import LogLine, Notice, RunEvent, StepPhase, StepProgress
from quantui.runtime.log_tail import LogTail, last_lines
from quantui.runtime.process import KeptProcess, start_failure

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from quantui.runtime.run_context import RunContext

_TICK_S = 0.1


def run_worker(
    context: RunContext,
    step: str,
    argv: Sequence[str],
    job: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    name: str | None = None,
    within: str = "",
) -> Generator[RunEvent, None, dict[str, Any]]:
    """Start ``argv`` with ``job``; yields its events and gives its result.

    Where a step has more than one worker, ``name`` is of this one's log and job file, and its phases are told as
    those ``within`` a part of the step.

    Raises the worker's own error, ``worker.died`` (exit code 4) when it ended without a word, and
    ``run.cancelled`` when the run was cancelled meanwhile; no process of it is left in any case.
    """
    name = name or step
    log = context.folder.log(name)
    process = KeptProcess(
        [*argv, str(context.folder.write_job(name, dict(job)))],
        run_id=context.folder.run_id,
        name=name,
        log=log,
        env=env,
        cwd=context.folder.path,
        events=True,
    )
    context.watch(process)
    tail = LogTail(log)
    result: dict[str, Any] | None = None
    error: QuantuiError | None = None
    buffer = b""
    stopping = False
    waited = [process.status_fd, *([] if process.events_fd is None else [process.events_fd])]
    try:
        while True:
            gone = process.status().gone
            if not gone:
                select.select(waited, [], [], _TICK_S)
            buffer, messages, ended = _read_messages(process, buffer)
            if ended:
                # A pipe at its end is always readable: waiting on it would spin.
                waited = [process.status_fd]
            for message in messages:
                kind = message.pop("type", None)
                if kind == "result":
                    result = message
                elif kind == "error":
                    error = QuantuiError.from_dict(message)
                elif (event := event_of(step, kind, message, within)) is not None:
                    yield event
            for line in tail.lines(final=gone):
                yield LogLine(at=time.time(), step=step, text=line)
            yield from context.samples()
            if context.cancelled() and not stopping:
                stopping = True
                process.request_stop()
            if gone:
                break
    finally:
        status = process.close()
        context.unwatch(process)
    if stopping:
        raise cancelled()
    if failure := start_failure(status, argv):
        raise failure
    if error is not None:
        error.detail = (*error.detail, f"log: {log}")
        raise error
    if result is None or status.exit_code != 0:
        raise _died(step, status.exit_code, last_lines(log, 3), str(log))
    return result


def cancelled() -> QuantuiError:
    """The error of a run that somebody stopped."""
    return QuantuiError("run.cancelled", "Cancelled.", exit_code=ExitCode.CANCELLED)


def _read_messages(process: KeptProcess, buffer: bytes) -> tuple[bytes, list[dict[str, Any]], bool]:
    """What is left of ``buffer``, the messages that came, and whether the pipe has ended."""
    ended = False
    while process.events_fd is not None and not ended:
        try:
            data = os.read(process.events_fd, 65536)
        except BlockingIOError:
            break
        ended = not data
        buffer += data
    *lines, rest = buffer.split(b"\n")
    messages: list[dict[str, Any]] = []
    for line in lines:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict):
            messages.append(message)
    return rest, messages, ended


def event_of(
    step: str, kind: object, message: Mapping[str, Any], within: str = ""
) -> RunEvent | None:
    """The event of a worker's message (an install speaks alike); None for one that is none, which costs nothing."""
    at = time.time()
    if kind == "progress":
        done, total = _number(message.get("done")), _number(message.get("total"))
        if done is None:
            return None
        return StepProgress(
            at=at,
            step=step,
            done=done,
            total=total,
            unit=str(message.get("unit", "")),
            message=str(message.get("message", "")),
        )
    if kind == "phase":
        phase = str(message.get("name", ""))
        return StepPhase(at=at, step=step, phase=f"{within}: {phase}" if within else phase)
    if kind == "notice" and "text" in message:
        return Notice(
            at=at, step=step, level=str(message.get("level", "info")), text=str(message["text"])
        )
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _died(step: str, exit_code: int | None, lines: list[str], log: str) -> QuantuiError:
    if exit_code == -9:
        why = "It was killed: most likely the kernel had no memory left."
    elif exit_code is not None and exit_code < 0:
        why = f"Signal {-exit_code} ended it."
    else:
        why = f"It ended with exit status {exit_code}."
    return QuantuiError(
        "worker.died",
        f"The step `{step}` died without giving a result.",
        why,
        "Free memory, or read the log.",
        ExitCode.DOES_NOT_FIT if exit_code == -9 else ExitCode.ENGINE,
        (*lines, f"log: {log}"),
    )
