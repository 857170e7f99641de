"""The artifact store: checkpoints that quantui made, found again by what they were made from.

An artifact is a folder named by its :class:`ArtifactKey`. It is made in ``NAME.staged`` beside its place, gets
its ``quantui.json`` there, and is renamed whole; a folder without that file, or with files of another size
than it lists, is not one. A lock file keeps two runs from making the same artifact at once.
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
from quantui.runtime.paths import artifacts_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.domain.plan import ArtifactKey

RECORD = "quantui.json"
_FORMAT = 1
_RESERVE_BYTES = 256 * 1024**2
"""Left free beside an artifact: logs, caches and other programs write too."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact and what ``quantui.json`` says of it."""

    path: Path
    record: dict[str, Any]


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

    @contextlib.contextmanager
    def exclusive(self, key: ArtifactKey, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Hold the artifact's lock; waits for another run that is making it."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root / f"{key.folder}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            os.close(lock)

    def stage(self, key: ArtifactKey, needed_bytes: int) -> Path:
        """A clean place to make the artifact in; earlier leftovers of it are removed first.

        Raises ``disk.too-little`` (exit code 3) when ``needed_bytes`` and a reserve are not free.
        """
        staged = self.path_of(key).with_name(f"{key.folder}.staged")
        for leftover in self.root.glob(f"{key.folder}.staged*"):
            shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes + _RESERVE_BYTES:
            raise QuantuiError(
                "disk.too-little",
                f"The disk of {self.root} has too little room.",
                f"{needed_bytes / 1024**3:.2f} GiB and a reserve of "
                f"{_RESERVE_BYTES / 1024**3:.2f} GiB are needed, {free / 1024**3:.2f} GiB are free.",
                "Free space there, or set QUANTUI_HOME to a folder on a larger disk.",
                ExitCode.DOES_NOT_FIT,
            )
        return staged

    def discard(self, key: ArtifactKey) -> None:
        """Remove what :meth:`stage` gave and an unfinished maker left."""
        for leftover in self.root.glob(f"{key.folder}.staged*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def commit(self, key: ArtifactKey, staged: Path, made: dict[str, Any]) -> Artifact:
        """Write ``quantui.json`` into ``staged`` and rename it into its place, replacing an older one."""
        final = self.path_of(key)
        record = {
            "format": _FORMAT,
            "kind": key.kind,
            "base": key.base,
            "inputs": dict(key.inputs),
            "quantui_version": __version__,
            "created": time.time(),
            "files": _files(staged),
            "made": made,
        }
        partial = staged / f"{RECORD}.partial"
        with partial.open("w", encoding="utf-8") as out:
            json.dump(record, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(staged / RECORD)
        if final.exists():
            old = final.with_name(f"{key.folder}.staged-old")
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
            staged.rename(final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            staged.rename(final)
        return Artifact(final, record)

    def delete(self, key: ArtifactKey) -> None:
        """Remove a finished artifact: renamed first, so that a half-deleted one is never taken for one."""
        doomed = self.path_of(key).with_name(f"{key.folder}.staged-deleting")
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.path_of(key).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def read_artifact(path: Path) -> Artifact | None:
    """The artifact in ``path`` if it is whole: its record is readable and every listed file has its size."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if record["format"] != _FORMAT or not isinstance(record["made"], dict):
            return None
        for name, size in record["files"].items():
            if (path / name).stat().st_size != size:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Artifact(path, record)


def _files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
