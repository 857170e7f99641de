"""The keeper: a small program between quantui and a child, which outlives quantui to clean up after it.

Run by path with quantui's own interpreter (``python -I -S keeper.py``, its job as JSON on stdin, where
no `ps` shows a key), it imports the standard library alone and starts in milliseconds. It is the child's
parent and, through PR_SET_CHILD_SUBREAPER, the foster parent of whatever the child leaves behind (vLLM's
EngineCore and Worker survive their API server), so that every process of the run can be found and stopped
even after quantui got SIGKILL.

It listens on the *lifeline*, a pipe whose other end only quantui holds: ``S`` asks to stop; the end of
the file means that quantui is gone, which is the same request. It answers on the *status* pipe, one JSON
object a line: ``{"started": pid}``, ``{"exited": code}``, ``{"gone": true, "killed": n}``. It exits only when no
process of the run is left, and takes the folder of their sockets with it (socket_folder.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_RESOURCE_TRACKER_GRACE_S = 1.0
"""multiprocessing's resource tracker unlinks leaked shared memory when its clients are dead: let it."""


def processes() -> dict[int, tuple[int, str]]:
    """pid -> (parent pid, state letter) of every process, from /proc/PID/stat."""
    table: dict[int, tuple[int, str]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stat:
                # The command name may hold spaces and parentheses: fields start after the last ")".
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        table[int(entry)] = (int(fields[1]), fields[0].decode())
    return table


def descendants(root: int) -> list[int]:
    """Every living process below ``root``, children before grandchildren; zombies left out."""
    table = processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = list(children.get(root, ()))
    while queue:
        pid = queue.pop(0)
        queue.extend(children.get(pid, ()))
        if table[pid][1] not in "ZX":
            found.append(pid)
    return found


def marked(mark: str, *, prefix: bool = False) -> list[int]:
    """Every living process, other than this one, whose environment holds ``mark`` (``NAME=value``).

    With ``prefix``, the value may go on after what ``mark`` gives of it.
    """
    needle = b"\0" + mark.encode() + (b"" if prefix else b"\0")
    found: list[int] = []
    for pid, (_, state) in processes().items():
        if pid == os.getpid() or state in "ZX":
            continue
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
            if needle in b"\0" + environ.read() + b"\0":
                found.append(pid)
    return found


def _is_resource_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as cmdline:
        return b"resource_tracker" in cmdline.read()
    return False


def send(pids: list[int], number: int) -> None:
    """Signal each process; one that is already gone is no error."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def remove_sockets(folder: str) -> None:
    """Remove a folder of sockets; anything else in it that is a folder stays, and then so does this one."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


class Keeper:
    """Starts one child and sees it, and all it leaves behind, to the end."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.lifeline: int = job["lifeline_fd"]
        self.status_fd: int = job["status_fd"]
        self.mark: str = job["mark"]
        self.stop_plan: list[tuple[float, str]] = [(float(s), str(n)) for s, n in job["stop_plan"]]
        self.job = job
        self.killed = 0

    def gone(self) -> None:
        """Take away what the processes leave behind, and tell that none is left."""
        if self.job["sockets"] is not None:
            remove_sockets(self.job["sockets"])
        self.status(gone=True, killed=self.killed)

    def status(self, **message: object) -> None:
        """Tell quantui, if it is still there."""
        with contextlib.suppress(OSError):
            os.write(self.status_fd, json.dumps(message).encode() + b"\n")

    def start(self) -> subprocess.Popen[bytes] | None:
        """Start the child in a session of its own, its output appended to the log."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        keeper = os.getpid()

        def die_with_keeper() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper:
                os._exit(125)

        log: int | None = None
        events: int | None = self.job["events_fd"]
        try:
            log = os.open(self.job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            child = subprocess.Popen(
                self.job["argv"],
                env=self.job["env"],
                cwd=self.job["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=() if events is None else (events,),
                preexec_fn=die_with_keeper,  # noqa: PLW1509 - this program has one thread
            )
        except OSError as error:
            self.status(failed=f"{error.strerror}: {error.filename or self.job['argv'][0]}")
            return None
        except ValueError as error:
            # A null byte in an argument: no program can be given one.
            self.status(failed=str(error))
            return None
        finally:
            for fd in (log, events):
                if fd is not None:
                    os.close(fd)
        self.status(started=child.pid)
        return child

    def remaining(self) -> list[int]:
        """Every process of the run that still lives."""
        return sorted(set(descendants(os.getpid())) | set(marked(self.mark)))

    def reap(self) -> None:
        """Collect orphans that became children of the keeper."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] > 0:
                pass

    def kill_all(self) -> None:
        """SIGKILL until nothing is left; the resource tracker gets a moment to free shared memory."""
        spare_until = time.monotonic() + _RESOURCE_TRACKER_GRACE_S
        while pids := self.remaining():
            spare = time.monotonic() < spare_until
            targets = [pid for pid in pids if not (spare and _is_resource_tracker(pid))]
            self.killed += len(targets)
            send(targets, signal.SIGKILL)
            time.sleep(0.05)
            self.reap()

    def run(self) -> int:
        """Watch the child until it ends or is to be stopped; then clear what is left."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        asked = [False]

        def ask(*_: object) -> None:
            asked[0] = True

        # Handlers, not SIG_IGN: a child inherits an ignored signal through exec, a handled one not.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)

        child = self.start()
        if child is None:
            self.gone()
            return 127
        stop_started: float | None = None
        pending = list(self.stop_plan)
        watch = [self.lifeline, wake_read]
        while child.poll() is None:
            timeout = 0.5 if stop_started is None else 0.05
            readable, _, _ = select.select(watch, [], [], timeout)
            if wake_read in readable:
                os.read(wake_read, 4096)
            if self.lifeline in readable:
                asked[0] = True
                if not os.read(self.lifeline, 64):
                    watch.remove(self.lifeline)
            if asked[0] and stop_started is None:
                stop_started = time.monotonic()
            while (
                stop_started is not None
                and pending
                and time.monotonic() - stop_started >= pending[0][0]
                and child.poll() is None
            ):
                name = pending.pop(0)[1]
                if name == "KILL":
                    self.kill_all_but_wait(child)
                else:
                    send([child.pid], getattr(signal, f"SIG{name}"))
        self.status(exited=child.returncode)
        leftovers = self.remaining()
        if leftovers:
            deadline = time.monotonic() + 1.0
            send(leftovers, signal.SIGTERM)
            while self.remaining() and time.monotonic() < deadline:
                time.sleep(0.02)
                self.reap()
        self.kill_all()
        self.gone()
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    def kill_all_but_wait(self, child: subprocess.Popen[bytes]) -> None:
        """The last step of a stop: the leader too is killed, and waited for."""
        send([child.pid], signal.SIGKILL)
        child.wait()


if __name__ == "__main__":
    sys.exit(Keeper(json.load(sys.stdin)).run())
