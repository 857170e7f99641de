"""The environments quantui owns: ``<engines>/<name>`` with a ``quantui.json``, whole or not there.

An environment under way is ``<name>.partial-<pid>`` beside it and never counts as one. Whoever
installs or removes holds ``.<name>.lock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.paths import engines_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = "quantui.json"


@dataclass(frozen=True)
class EngineRecord:
    """What ``quantui.json`` says: sizes in bytes, ``created`` in seconds since the epoch."""

    spec: str
    lock_hash: str
    versions: dict[str, str]
    plugins: list[str]
    bytes_on_disk: int
    shared_bytes: int
    """Of these, in files that uv's cache holds too: removing the environment does not free them."""
    created: float
    install_seconds: float
    quantui_version: str


@dataclass(frozen=True)
class DiskSize:
    """Bytes of the files below a folder, each inode once; ``shared`` those with links elsewhere."""

    total: int
    shared: int


def engine_path(name: str) -> Path:
    """Where the environment called ``name`` lies when it is whole."""
    return engines_dir() / name


def engine_python(name: str) -> Path:
    """Its interpreter."""
    return engine_path(name) / "bin" / "python"


def partials(name: str) -> list[Path]:
    """What interrupted or running installs and removals of ``name`` have on disk."""
    folder = engines_dir()
    if not folder.is_dir():
        return []
    return sorted([*folder.glob(f"{name}.partial-*"), *folder.glob(f"{name}.old-*")])


def read_record(folder: Path) -> EngineRecord | None:
    """The record of a whole environment; None when there is none or it cannot be read."""
    try:
        return EngineRecord(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_record(folder: Path, record: EngineRecord) -> None:
    """Write the record; it reaches the disk before this returns."""
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def disk_size(folder: Path) -> DiskSize:
    """Walk ``folder``; links are not followed and what vanishes meanwhile is left out."""
    seen: set[tuple[int, int]] = set()
    total = shared = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                stat = os.lstat(os.path.join(parent, file))  # noqa: PTH118 - 60,000 files
                if (stat.st_dev, stat.st_ino) not in seen:
                    seen.add((stat.st_dev, stat.st_ino))
                    total += stat.st_size
                    shared += stat.st_size if stat.st_nlink > 1 else 0
    return DiskSize(total, shared)


def processes_using(folder: Path) -> list[tuple[int, str]]:
    """(pid, name) of processes that run from ``folder``, by command line or mapped files.

    vLLM's workers rename themselves, so that only their mapped libraries tell. Other users'
    processes cannot be looked into.
    """
    import psutil

    prefix = str(folder) + os.sep
    found: list[tuple[int, str]] = []
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        if process.pid == os.getpid():
            continue
        uses = any(part.startswith(prefix) for part in process.info["cmdline"] or ())
        if not uses:
            with contextlib.suppress(OSError):
                uses = f" {prefix}" in Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
        if uses:
            found.append((process.pid, process.info["name"] or "?"))
    return found


def refuse_when_used(name: str, folder: Path) -> None:
    """Raise ``engine.in-use`` naming the processes that run from ``folder``."""
    users = processes_using(folder)
    if users:
        raise QuantuiError(
            "engine.in-use",
            f"The engine {name} is in use.",
            "Running from it: "
            + ", ".join(f"{title} (pid {pid})" for pid, title in users[:8])
            + ".",
            "Stop these processes, then try again.",
            ExitCode.ENGINE,
        )


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock of ``name``; raises ``engine.busy`` when another process has it.

    The kernel drops the lock when its holder dies, however it dies.
    """
    folder = engines_dir()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise QuantuiError(
                "engine.busy",
                f"Another process is working on the engine {name}.",
                f"Process {holder} holds its lock." if holder else "It holds the lock.",
                "Wait until it is done, or stop it.",
                ExitCode.ENGINE,
            ) from None
        # Who holds it is told where there is room for that: a full disk keeps nobody from removing an engine.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def remove_tree(folder: Path, *, within_s: float = 10.0) -> None:
    """Delete ``folder``, trying for ``within_s`` seconds while a dying process writes into it."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
