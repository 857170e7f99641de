"""Run a sibling worker in the same interpreter, in a process of its own, whose memory ends with it.

The child ends with its parent, however that ends; see ``quantui_wire.end_with_parent``. Standard library
alone. The child speaks as any worker does; what it says is passed on, but for its result and its error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def run_child(program: str, job: dict[str, Any], pass_fds: tuple[int, ...] = ()) -> dict[str, Any]:
    """The result of the worker ``program`` (a file of this folder) for ``job``.

    ``pass_fds`` are open in the child too, under the same numbers. Call it from the main thread: the
    child ends with the thread that started it.

    Raises:
        WorkerError: The child's own error, or ``worker.died`` when it ended without a word.
    """
    import quantui_wire as wire

    reading, writing = os.pipe()
    file = os.memfd_create("job")
    os.write(file, json.dumps(job).encode())
    environment = {
        **os.environ,
        "QUANTUI_EVENTS_FD": str(writing),
        wire.PARENT: str(os.getpid()),
    }
    child = subprocess.Popen(
        [sys.executable, str(_HERE / program), f"/proc/self/fd/{file}"],
        env=environment,
        pass_fds=(writing, file, *pass_fds),
        stdin=subprocess.DEVNULL,
    )
    os.close(writing)
    os.close(file)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    with os.fdopen(reading, encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            if event.get("type") == "result":
                result = event
            elif event.get("type") == "error":
                error = event
            else:
                wire.emit(event)
    status = child.wait()
    if error is not None:
        raise wire.WorkerError(
            error["code"],
            error["what"],
            error.get("why", ""),
            error.get("fix", ""),
            exit_code=error.get("exit_code", 4),
            detail=tuple(error.get("detail", ())),
        )
    if result is None or status != 0:
        raise wire.WorkerError(
            "worker.died",
            f"{program} died without giving a result.",
            f"Signal {-status} ended it." if status < 0 else f"Its exit status is {status}.",
            "Free memory, or read the log.",
            exit_code=3 if status == -9 else 4,
        )
    result.pop("type")
    return result
