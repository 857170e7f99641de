"""How a worker speaks to quantui: one JSON job in, one JSON event a line out.

A worker is a program run by an engine's own interpreter. It may import the standard library, its
engine's packages and this module, which therefore imports the standard library alone. Libraries
print on stdout and stderr, so events have a file descriptor of their own, named by
``QUANTUI_EVENTS_FD``; without it (a worker run by hand) they go to stdout.

    import quantui_wire as wire

    def main(job: dict) -> dict:
        wire.progress(1, 4, unit="shards", message="reading")
        return {"tensors": 4}

    wire.run(main)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

# A worker's folder stands first on sys.path: a sibling could shadow a module of the engine.
_HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [entry for entry in sys.path if str(Path(entry or ".").resolve()) != _HERE]

_lock = threading.Lock()

PARENT = "QUANTUI_PARENT_PID"
"""Names the worker that started this one; see :func:`end_with_parent`."""

_PR_SET_PDEATHSIG = 1


class WorkerError(Exception):
    """A foreseeable failure with its cause and fix; a ``QuantuiError`` on the other side."""

    def __init__(
        self,
        code: str,
        what: str,
        why: str = "",
        fix: str = "",
        *,
        exit_code: int = 4,
        detail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what)
        self.event = {
            "type": "error",
            "code": code,
            "what": what,
            "why": why,
            "fix": fix,
            "exit_code": exit_code,
            "detail": list(detail),
        }


def _channel() -> int:
    return int(os.environ.get("QUANTUI_EVENTS_FD", "1"))


def emit(event: dict[str, Any]) -> None:
    """Write one event as one line, whole, from any thread."""
    line = (json.dumps(event, ensure_ascii=True) + "\n").encode()
    with _lock:
        view = memoryview(line)
        while view:
            view = view[os.write(_channel(), view) :]


def phase(name: str) -> None:
    """A named stage of the work has begun."""
    emit({"type": "phase", "name": name})


def progress(done: float, total: float | None, *, unit: str, message: str = "") -> None:
    """``done`` of ``total`` (None: unknown) in ``unit`` (``bytes``, ``tensors``, ``steps`` ...)."""
    emit({"type": "progress", "done": done, "total": total, "unit": unit, "message": message})


def notice(text: str, *, level: str = "info") -> None:
    """Something a person should know; ``level`` is ``info`` or ``warning``."""
    emit({"type": "notice", "level": level, "text": text})


def end_with_parent() -> None:
    """Let the kernel kill this process when the worker that started it ends, by whatever signal.

    A signal that ends one process leaves its children, and one that is blocked in the parent is
    blocked in the child too.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        # It ended before the kernel had been asked.
        os._exit(125)


def run(main: Callable[[dict[str, Any]], dict[str, Any]], *, at_once: bool = False) -> NoReturn:
    """Run ``main`` on the job whose path is the first argument, report its result, and exit.

    Exit status: 0 with a ``result`` event, 1 with an ``error`` event. The traceback of an
    unexpected exception goes to stderr, which is the run's log. ``at_once``: after a result end without
    Python's own end, which takes torch half a second of unloading and does nothing else here.
    """
    end_with_parent()
    try:
        job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        result = main(job)
    except WorkerError as error:
        emit(error.event)
        sys.exit(1)
    except MemoryError:
        traceback.print_exc()
        emit(
            {
                "type": "error",
                "code": "worker.out-of-memory",
                "what": f"{Path(sys.argv[0]).name} ran out of memory.",
                "why": "The machine or its memory limit has less free RAM than this step needs.",
                "fix": "Close other programs, or raise the limit, and run again.",
                "exit_code": 3,
            }
        )
        sys.exit(1)
    except OSError as error:
        traceback.print_exc()
        import errno

        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        emit(
            {
                "type": "error",
                "code": "disk.full" if full else "worker.os-error",
                "what": "The disk is full."
                if full
                else f"{Path(sys.argv[0]).name} failed: {error}",
                "why": str(error),
                "fix": "Free disk space and run again; finished steps are reused."
                if full
                else "The log has the whole traceback.",
                "exit_code": 3 if full else 4,
            }
        )
        sys.exit(1)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        first_line = (str(error).strip().splitlines() or [""])[0]
        emit(
            {
                "type": "error",
                "code": "worker.crashed",
                "what": f"{Path(sys.argv[0]).name} failed with {type(error).__name__}.",
                "why": first_line[:500],
                "fix": "The log has the whole traceback.",
                "exit_code": 4,
            }
        )
        sys.exit(1)
    emit({"type": "result", **result})
    if at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    sys.exit(0)
