"""The run host: a process of its own that runs one plan, so that a run can outlive the face that began it.

``python -m quantui.runtime.run_host REPLY_FD`` gets the length and the pickle of (plan, hold) on stdin, which stays
open as the *lifeline*: ``C`` cancels the run, ``D`` lets it go on alone; the end of the file before that means that
whoever began it is gone, which is a cancel too. On REPLY_FD it answers in JSON lines: the run's id and folder or the
error that kept it from starting, then ``{"detached": true}`` (false: it is being cancelled). Everything else is in the
run's record; :mod:`.hosted_run` is the other end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import RunFinished
from quantui.runtime.recorder import Recorder
from quantui.runtime.runner import Runner

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.domain.plan import Plan

LOG = "host.log"
"""The host's own output in the run's folder: empty unless quantui has a defect."""
CANCEL, DETACH = b"C", b"D"
LENGTH_BYTES = 8


class Lifeline:
    """Listens to whoever began the run; its thread ends with the process."""

    def __init__(self, fd: int, reply: int, cancel: threading.Event) -> None:
        self._fd = fd
        self._reply = reply
        self._cancel = cancel

    def listen(self) -> None:
        """Do what the words say, until the run is cancelled or goes on alone."""
        while word := os.read(self._fd, 1):
            if word == CANCEL:
                self._cancel.set()
            elif word == DETACH:
                alone = not self._cancel.is_set()
                answer(self._reply, detached=alone)
                if alone:
                    return
        self._cancel.set()


def answer(reply: int, **told: object) -> None:
    """One JSON line to whoever began the run, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(reply, json.dumps(told).encode() + b"\n")


def defect(error: Exception, log: Path | None) -> QuantuiError:
    """The error that says that quantui itself is at fault, its traceback in ``log``."""
    return QuantuiError(
        "quantui.defect",
        f"This is a defect of quantui: {type(error).__name__}: {error}",
        "" if log is None else f"The traceback is in {log}.",
        "Please report it with that file." if log else "Please report it.",
        ExitCode.BUG,
    )


def read_plan(fd: int) -> tuple[Plan, bool]:
    """The plan and whether to hold its server; raises EOFError when whoever began the run is gone."""
    length = int.from_bytes(_read(fd, LENGTH_BYTES), "big")
    # From the process that started this one, over a pipe that no other has.
    plan, hold = pickle.loads(_read(fd, length))
    return plan, hold


def _read(fd: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = os.read(fd, length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def run(runner: Runner) -> int:
    """Run to the end; a defect of quantui is the end too. Gives the run's exit code."""
    started = time.monotonic()
    code = int(ExitCode.BUG)
    try:
        for event in runner.run():
            if isinstance(event, RunFinished):
                code = event.exit_code
    except Exception as error:  # noqa: BLE001 - the last net: whoever follows the record is told
        traceback.print_exc()
        recorder = Recorder(runner.folder)
        recorder.write(
            RunFinished(
                at=time.time(),
                outcome="failed",
                exit_code=int(ExitCode.BUG),
                seconds=time.monotonic() - started,
                error=defect(error, runner.folder.path / LOG).to_dict(),
            )
        )
        recorder.close()
    return code


def main() -> int:
    """Host the run that stdin describes."""
    cancel = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: cancel.set())
    reply = int(sys.argv[1])
    os.set_inheritable(reply, False)
    # No child may hold the lifeline, nor read from it.
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        plan, hold = read_plan(lifeline)
        runner = Runner(plan, cancel, hold_server=hold)
    except EOFError:
        return int(ExitCode.CANCELLED)
    except QuantuiError as error:
        answer(reply, error=error.to_dict())
        return int(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last net
        answer(reply, error=defect(error, None).to_dict())
        return int(ExitCode.BUG)
    with contextlib.suppress(OSError):
        # Named after its place only; a disk that is full keeps no run from being stopped.
        log = os.open(runner.folder.path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.enable()
    answer(reply, run_id=runner.folder.run_id, directory=str(runner.folder.path))
    listening = Lifeline(lifeline, reply, cancel)
    threading.Thread(target=listening.listen, name="quantui-lifeline", daemon=True).start()
    return run(runner)


if __name__ == "__main__":
    sys.exit(main())
