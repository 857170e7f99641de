"""Child processes that cannot be left behind: each runs under a keeper (see :mod:`.keeper`).

Three layers see to it that nothing of a run survives it: the keeper stops and reaps every descendant when
quantui asks or dies; the kernel kills the child when the keeper dies (PR_SET_PDEATHSIG), and then
:meth:`KeptProcess.close` kills whatever still carries the run's mark in its environment; a later start of
quantui does the same for runs whose quantui and keeper are both gone (:func:`reap_abandoned`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime import keeper
from quantui.runtime.paths import engines_dir
from quantui.runtime.socket_folder import VARIABLE, clear_socket_folders, make_socket_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK = "QUANTUI_PROCESS_OF"
"""Environment variable that names the run and step (``RUN:STEP``) a process belongs to."""

WORKER_STOP: tuple[tuple[float, str], ...] = ((0.0, "TERM"), (3.0, "KILL"))
"""(seconds after the request, signal): a worker removes its partial output on SIGTERM."""

VLLM_STOP: tuple[tuple[float, str], ...] = ((0.0, "INT"), (4.0, "INT"), (8.0, "KILL"))
"""SIGINT, because a SIGTERM while weights load is lost; again, because so may be one SIGINT (VLLM.md)."""


@dataclass(frozen=True)
class Status:
    """What the keeper has told so far. ``exit_code`` is negative for a signal, as in subprocess."""

    pid: int | None = None
    exit_code: int | None = None
    gone: bool = False
    failed: str | None = None


class KeptProcess:
    """One child under a keeper: its log, its events, its end."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        run_id: str,
        name: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_plan: Sequence[tuple[float, str]] = WORKER_STOP,
        events: bool = False,
    ) -> None:
        """Start ``argv`` as ``name`` of a run; ``env`` is added to this process's environment.

        With ``events``, the child finds the write end of a pipe in ``QUANTUI_EVENTS_FD`` and
        ``events_fd`` is the non-blocking read end. Both streams of the child are appended to ``log``.
        """
        self._mark = f"{MARK}={run_id}:{name}"
        self.argv = tuple(argv)
        lifeline_read, self._lifeline = os.pipe()
        self._status_read, status_write = os.pipe()
        self.events_fd: int | None = None
        events_write: int | None = None
        child_env = {**os.environ, **(env or {}), MARK: f"{run_id}:{name}", "SPT_NOENV": "1"}
        child_env.pop("QUANTUI_EVENTS_FD", None)
        # A folder that the user named is theirs to clear.
        self._sockets = None if VARIABLE in child_env else make_socket_folder(run_id)
        if self._sockets is not None:
            child_env[VARIABLE] = self._sockets
        if Path(argv[0]).is_relative_to(engines_dir()):
            # The environment is quantui's own: keeping compiled modules spares each of vLLM's three
            # processes compiling some two thousand of them anew at every start.
            child_env.pop("PYTHONDONTWRITEBYTECODE", None)
        passed = [lifeline_read, status_write]
        if events:
            self.events_fd, events_write = os.pipe()
            os.set_blocking(self.events_fd, False)
            child_env["QUANTUI_EVENTS_FD"] = str(events_write)
            passed.append(events_write)
        job = {
            "argv": list(argv),
            "env": child_env,
            "cwd": None if cwd is None else str(cwd),
            "log": str(log),
            "lifeline_fd": lifeline_read,
            "status_fd": status_write,
            "events_fd": events_write,
            "mark": self._mark,
            "sockets": self._sockets,
            "stop_plan": list(stop_plan),
        }
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=passed,
        )
        for fd in passed:
            os.close(fd)
        os.set_blocking(self._status_read, False)
        self._buffer = b""
        self._closed = False
        self._status = Status()
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._keeper.stdin as pipe:
            pipe.write(json.dumps(job).encode())

    @property
    def keeper_pid(self) -> int:
        """The keeper's own process."""
        return self._keeper.pid

    @property
    def status_fd(self) -> int:
        """Readable when :meth:`status` has something new: for a selector."""
        return self._status_read

    def status(self) -> Status:
        """The newest state, without waiting; after :meth:`close` the last one."""
        if self._closed:
            return self._status
        # Asked before the pipe is read: what a keeper said just before its end is then not missed.
        ended = self._keeper.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._status_read, 65536):
                self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            told = json.loads(line)
            self._status = Status(
                pid=told.get("started", self._status.pid),
                exit_code=told.get("exited", self._status.exit_code),
                gone=told.get("gone", self._status.gone),
                failed=told.get("failed", self._status.failed),
            )
        if ended and not self._status.gone:
            # The keeper itself was killed; the child died with it, its orphans have not.
            self._kill_marked()
            self._clear_sockets()
            self._status = Status(
                self._status.pid,
                self._status.exit_code if self._status.exit_code is not None else -signal.SIGKILL,
                gone=True,
                failed=self._status.failed,
            )
        return self._status

    def request_stop(self) -> None:
        """Begin the stop plan; returns at once."""
        if not self._closed:
            with contextlib.suppress(OSError):
                os.write(self._lifeline, b"S")

    def wait_gone(self, timeout: float | None = None) -> Status:
        """Wait until no process of the child is left; raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (state := self.status()).gone:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.argv[0]} still has processes after {timeout} s")
            time.sleep(0.02)
        return state

    def pids(self) -> list[int]:
        """Every process under the keeper, for the memory sampler."""
        return keeper.descendants(self._keeper.pid)

    def close(self, timeout: float = 15.0) -> Status:
        """Stop, wait, and release the pipes. Whatever outlives ``timeout`` seconds is killed.

        Closing again does nothing: the numbers of the pipes may be another file's by then.
        """
        if self._closed:
            return self._status
        self.request_stop()
        try:
            state = self.wait_gone(timeout)
        except TimeoutError:
            self._keeper.kill()
            self._keeper.wait()
            self._kill_marked()
            self._clear_sockets()
            state = self.status()
        self._keeper.wait()
        self._closed = True
        for fd in (self._lifeline, self._status_read, self.events_fd):
            if fd is not None:
                os.close(fd)
        self.events_fd = None
        return state

    def _clear_sockets(self) -> None:
        if self._sockets is not None:
            keeper.remove_sockets(self._sockets)

    def _kill_marked(self) -> None:
        deadline = time.monotonic() + 5.0
        while (pids := keeper.marked(self._mark)) and time.monotonic() < deadline:
            keeper.send(pids, signal.SIGKILL)
            time.sleep(0.05)


def start_failure(status: Status, argv: Sequence[str]) -> QuantuiError | None:
    """The error of a program that could not be started at all, or None."""
    if status.failed is None:
        return None
    return QuantuiError(
        "engine.cannot-start",
        f"{argv[0]} could not be started.",
        status.failed,
        "Check the engine with `quantui doctor`.",
        ExitCode.ENGINE,
    )


def reap_abandoned(run_id: str) -> int:
    """Kill what is left of a run whose quantui and keeper are both gone; gives the number of processes."""
    killed: set[int] = set()
    deadline = time.monotonic() + 5.0
    while (pids := keeper.marked(f"{MARK}={run_id}:", prefix=True)) and time.monotonic() < deadline:
        killed.update(pids)
        keeper.send(pids, signal.SIGKILL)
        time.sleep(0.05)
    clear_socket_folders(run_id)
    return len(killed)
