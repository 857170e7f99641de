"""The artifact store: checkpoints that quantui made, found again by what they were made from.

An artifact is a folder named by its :class:`ArtifactKey`. It is made in ``NAME.staged`` beside its place, gets
its ``quantui.json`` there, and is renamed whole; a folder without that file, or with files of another size
than it lists, is not one. What a maker left in ``NAME.staged.partial`` is kept for the next one, which
knows whether it can go on from it. A lock file keeps two runs from making the same artifact at once, and says
for which inputs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - read at run time by dataclasses
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.units import RESERVE_BYTES
from quantui.runtime.paths import artifacts_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantui.domain.caches.made_from import MadeFrom
    from quantui.domain.plan import ArtifactKey

RECORD = "quantui.json"
UNPROVEN = "quantui-unproven.json"
"""In a folder whose proof has not been carried out; see unproven.py."""

_FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """A finished artifact and what ``quantui.json`` says of it."""

    path: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """How an artifact can be had again: from what, and the ``seconds`` that making and proving it took.

    None: nobody measured it, as where an earlier try had made a part.
    """

    made_from: MadeFrom | None = None
    seconds: float | None = None

    def told(self) -> dict[str, Any]:
        """As a record holds it."""
        return {
            "made_from": None if self.made_from is None else self.made_from.to_dict(),
            "seconds": None if self.seconds is None else round(self.seconds, 1),
        }


class ArtifactStore:
    """All artifacts below one folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or artifacts_dir()

    def path_of(self, key: ArtifactKey) -> Path:
        """Where the artifact of ``key`` is, or would be."""
        return self.root / key.folder

    def find(self, key: ArtifactKey) -> Artifact | None:
        """The finished artifact of ``key``; None when there is none or it is damaged."""
        return read_artifact(self.path_of(key))

    def exclusive(
        self, key: ArtifactKey, cancelled: Callable[[], bool]
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the artifact's lock; waits for another run that is making it."""
        return exclusive(self.lock_of(key), cancelled)

    def lock_of(self, key: ArtifactKey) -> Path:
        """The artifact's lock file."""
        return self.root / f"{key.folder}.lock"

    def partial_of(self, key: ArtifactKey) -> Path:
        """Where an unfinished maker leaves what the next one can go on from."""
        return self.root / f"{key.folder}.staged.partial"

    def stage(self, key: ArtifactKey, needed_bytes: int) -> Path:
        """Where to make the artifact; earlier leftovers are removed, but for :meth:`partial_of`.

        Raises ``disk.too-little`` (exit code 3) when ``needed_bytes`` and a reserve are not free.
        """
        for leftover in self._leftovers(key):
            if leftover != self.partial_of(key):
                shutil.rmtree(leftover, ignore_errors=True)
        require_room(
            self.root,
            needed_bytes,
            allocated_bytes(self.partial_of(key)),
            elsewhere="set QUANTUI_HOME to a folder on a larger disk",
        )
        note_inputs(self.lock_of(key), key.inputs)
        return self.staged_of(key)

    def staged_of(self, key: ArtifactKey) -> Path:
        """Where the artifact is made, beside its place."""
        return self.root / f"{key.folder}.staged"

    def discard(self, key: ArtifactKey) -> None:
        """Remove what :meth:`stage` gave and an unfinished maker left."""
        for leftover in self._leftovers(key):
            shutil.rmtree(leftover, ignore_errors=True)

    def _leftovers(self, key: ArtifactKey) -> list[Path]:
        return list(self.root.glob(f"{key.folder}.staged*"))

    def commit(
        self, key: ArtifactKey, staged: Path, made: dict[str, Any], origin: Origin | None = None
    ) -> Artifact:
        """Write ``quantui.json`` into ``staged`` and rename it into its place, replacing an older one."""
        final = self.path_of(key)
        record = write_record(staged, key, made, origin)
        if final.exists():
            old = final.with_name(f"{key.folder}.staged-old")
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
            staged.rename(final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            staged.rename(final)
        return Artifact(final, record)

    def delete(self, key: ArtifactKey) -> int:
        """Remove a finished artifact; gives the bytes on disk that this gave back.

        It is renamed first, so that a half-deleted one is never taken for one.
        """
        doomed = self.path_of(key).with_name(f"{key.folder}.staged-deleting")
        shutil.rmtree(doomed, ignore_errors=True)
        try:
            self.path_of(key).rename(doomed)
        except FileNotFoundError:
            return 0
        return _removed(doomed)


def _removed(folder: Path) -> int:
    """Remove ``folder``; gives the bytes on disk that its files had to themselves."""
    from quantui.runtime.caches.removing import Removal

    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        removal = Removal(above, folder.name)
        for _ in removal.steps(lambda: False):
            pass
        return removal.freed
    finally:
        os.close(above)


def write_record(
    folder: Path, key: ArtifactKey, made: dict[str, Any], origin: Origin | None = None
) -> dict[str, Any]:
    """Write ``quantui.json`` into ``folder``, which is whole; gives what it holds."""
    origin = origin or Origin()
    record: dict[str, Any] = {
        "format": _FORMAT,
        "kind": key.kind,
        "base": key.base,
        "inputs": dict(key.inputs),
        "quantui_version": __version__,
        "created": time.time(),
        "files": file_sizes(folder),
        "made": made,
        **origin.told(),
    }
    write_whole(folder / RECORD, record)
    return record


def write_whole(path: Path, value: object) -> None:
    """Write JSON that is on the disk, whole, before it has its name."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)


@contextlib.contextmanager
def exclusive(lock: Path, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock file; waits while another process has it, until ``cancelled``."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if cancelled():
                    raise QuantuiError(
                        "run.cancelled",
                        "Cancelled while another run makes the same artifact.",
                        exit_code=ExitCode.CANCELLED,
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def note_inputs(lock: Path, inputs: Mapping[str, str]) -> None:
    """Say in a lock file that is held for what inputs it is."""
    if noted_inputs(lock) != inputs:
        lock.write_text(json.dumps(dict(inputs)), encoding="utf-8")


def noted_inputs(lock: Path) -> dict[str, str]:
    """What :func:`note_inputs` wrote; nothing when it cannot be read."""
    try:
        inputs = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return inputs if isinstance(inputs, dict) else {}


def require_room(folder: Path, needed_bytes: int, there_bytes: int, *, elsewhere: str) -> None:
    """Raise ``disk.too-little`` when ``folder``'s disk lacks what is needed besides ``there_bytes``.

    ``elsewhere`` says how to take another disk.
    """
    free = shutil.disk_usage(folder).free
    if free >= max(0, needed_bytes - there_bytes) + RESERVE_BYTES:
        return
    there = f", {_gib(there_bytes)} of it are there from an earlier try" if there_bytes else ""
    raise QuantuiError(
        "disk.too-little",
        f"The disk of {folder} has too little room.",
        f"{_gib(needed_bytes)} and a reserve of {_gib(RESERVE_BYTES)} are needed{there}; "
        f"{_gib(free)} are free.",
        f"Free space there, or {elsewhere}.",
        ExitCode.DOES_NOT_FIT,
    )


def _gib(count: int) -> str:
    return f"{count / 1024**3:.2f} GiB"


def allocated_bytes(path: Path) -> int:
    """Disk space of the files below ``path``: a file with holes takes less than its length."""
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118
    return total


def read_artifact(path: Path) -> Artifact | None:
    """The artifact in ``path`` if it is whole: its record is readable and every listed file has its size."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if record["format"] != _FORMAT or not isinstance(record["made"], dict):
            return None
        if not all((path / name).stat().st_size == size for name, size in record["files"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Artifact(path, record)


def file_sizes(folder: Path) -> dict[str, int]:
    """Relative path -> bytes of every file below ``folder``, but for :data:`UNPROVEN`."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != UNPROVEN
    }
