"""A run in a process of its own, seen from outside: start it, follow it, stop it, or let it go on alone.

The record is how a run is followed, whoever began it: a run that this process started, one that an earlier wizard left
running, and a headless one look the same from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import RunFinished, RunStarted
from quantui.runtime.recorder import OWNER, owner_lives, owner_mark
from quantui.runtime.run_record import EVENTS, RecordTail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.events import RunEvent
    from quantui.domain.plan import Plan

_LOOK_S = 0.05
"""How often the record is looked at."""


class HostedRun:
    """One run in another process. Every method may be called from any thread.

    ``process`` and ``reply`` are there for a run that this process started: its host, and the pipe it answers on.
    """

    def __init__(
        self,
        run_id: str,
        directory: Path,
        owner: str,
        process: subprocess.Popen[bytes] | None = None,
        reply: int | None = None,
    ) -> None:
        self.run_id = run_id
        self.directory = directory
        self._owner = owner
        self._process = process
        self._reply = reply
        self._pipes = threading.Lock()

    @property
    def pid(self) -> int:
        """The process that runs it."""
        return int(self._owner.split()[0])

    @property
    def alive(self) -> bool:
        """Whether the process that runs it is still there."""
        if self._process is not None:
            return self._process.poll() is None
        return owner_lives(self._owner)

    def log(self, step: str) -> Path:
        """Where the log of a step is, or will be."""
        return self.directory / f"{step}.log"

    def events(self, stop: threading.Event | None = None) -> Iterator[RunEvent]:
        """Every event of the run from the first one on, then each as it comes; log lines are in the logs.

        Ends after RunFinished, or once ``stop`` is set. When the run's process is gone without having told the end,
        the last event is made here: ``run.host-died``.
        """
        tail = RecordTail(self.directory / EVENTS)
        started: float | None = None
        while stop is None or not stop.is_set():
            # Asked before the record is read: what was written just before the end is then not missed.
            alive = self.alive
            for event in tail.events():
                if isinstance(event, RunStarted):
                    started = event.at
                yield event
                if isinstance(event, RunFinished):
                    return
                if stop is not None and stop.is_set():
                    return
            if not alive:
                yield self._died(started)
                return
            if stop is None:
                time.sleep(_LOOK_S)
            else:
                stop.wait(_LOOK_S)

    def cancel(self) -> None:
        """Ask the run to stop; returns at once, and does nothing to a run that is over."""
        with self._pipes:
            if self._write(b"C"):
                return
        if self._process is None or self._process.poll() is None:
            signal_owner(self._owner, signal.SIGTERM)

    def detach(self) -> bool:
        """Let the run go on when this process ends; True once its host has said that it will.

        False when the run has ended or is being cancelled. A run that this process did not start goes on in any case.
        """
        with self._pipes:
            if self._reply is None:
                return self.alive
            line = _line(self._reply) if self._write(b"D") else b""
            alone = bool(line) and json.loads(line)["detached"] is True
            if alone or not line:
                self._let_go()
        return alone

    def wait(self, timeout_s: float) -> bool:
        """Wait until the run's process is gone, which is after every process of the run; False after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True

    def close(self) -> None:
        """Let go of the run: one that was started here and not detached is cancelled. May be called again."""
        with self._pipes:
            self._let_go()

    def _write(self, word: bytes) -> bool:
        """Say a word to the host; False when there is no pipe to it (any more)."""
        pipe = None if self._process is None else self._process.stdin
        if pipe is None or pipe.closed:
            return False
        try:
            pipe.write(word)
        except OSError:
            return False
        return True

    def _let_go(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._reply is not None:
            os.close(self._reply)
            self._reply = None

    def _died(self, started: float | None) -> RunFinished:
        code = None if self._process is None else self._process.returncode
        killed = code == -signal.SIGKILL
        if killed:
            why = "It was killed: by somebody, or by the kernel for want of memory."
        elif code is not None and code < 0:
            why = f"Signal {-code} ended it."
        else:
            why = "Its record stops without an end."
        error = QuantuiError(
            "run.host-died",
            f"The process of run {self.run_id} died.",
            why,
            "The processes of the run are stopped with it. Free memory, or read the log; then run it again.",
            ExitCode.DOES_NOT_FIT if killed else ExitCode.ENGINE,
            (f"log: {self.log('host')}",),
        )
        now = time.time()
        return RunFinished(
            at=now,
            outcome="failed",
            exit_code=int(error.exit_code),
            seconds=0.0 if started is None else max(0.0, now - started),
            error=error.to_dict(),
        )


def start_run(plan: Plan, *, hold: bool = True) -> HostedRun:
    """Begin ``plan`` in a process of its own; ``hold`` keeps its server until the run is cancelled.

    Takes as long as an interpreter takes to start, some tenths of a second. Raises what keeps a run from beginning
    (``run.no-record``), and ``run.host-failed``.
    """
    reply, told = os.pipe()
    with tempfile.TemporaryFile() as errors:
        try:
            # -P: a file of the user's that is called as a module of Python's is not taken for it.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "quantui.runtime.run_host", str(told)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                bufsize=0,
                start_new_session=True,
                pass_fds=(told,),
            )
        except OSError as error:
            os.close(reply)
            raise _failed(str(error)) from None
        finally:
            os.close(told)
        assert process.stdin is not None
        body = pickle.dumps((plan, hold))
        with contextlib.suppress(BrokenPipeError):
            _write_all(process.stdin.fileno(), len(body).to_bytes(8, "big") + body)
        try:
            answer = json.loads(_line(reply))
            if "error" in answer:
                raise QuantuiError.from_dict(answer["error"])
            run_id, directory = str(answer["run_id"]), Path(answer["directory"])
        except (ValueError, QuantuiError) as error:
            os.close(reply)
            process.stdin.close()
            process.wait()
            if isinstance(error, QuantuiError):
                raise
            errors.seek(0)
            raise _failed(errors.read()[-2000:].decode("utf-8", "replace")) from None
    return HostedRun(run_id, directory, owner_mark(process.pid), process, reply)


def signal_owner(owner: str, number: int) -> None:
    """Signal the process that ``owner`` (the text of an ``owner.pid``) names, and never another with its number."""
    pid = int(owner.split(maxsplit=1)[0])
    with contextlib.suppress(OSError):
        # The descriptor is of the process that has the number now; if that is the owner, it stays so.
        descriptor = os.pidfd_open(pid)
        try:
            if owner_lives(owner):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def read_owner(directory: Path) -> str | None:
    """The owner of a run that lives; None for one that is over."""
    try:
        owner = (directory / OWNER).read_text(encoding="utf-8")
        return owner if owner_lives(owner) else None
    except (OSError, ValueError, IndexError):
        return None


def _failed(why: str) -> QuantuiError:
    lines = [line for line in why.splitlines() if line.strip()]
    return QuantuiError(
        "run.host-failed",
        "The process that is to do the run did not start.",
        lines[-1] if lines else "It ended without a word.",
        "Free memory; if it stays so, install quantui again.",
        ExitCode.BUG,
        tuple(lines[-6:-1]),
    )


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _line(fd: int) -> bytes:
    """Up to the end of a line, or of the file."""
    data = b""
    while not data.endswith(b"\n") and (part := os.read(fd, 1)):
        data += part
    return data
