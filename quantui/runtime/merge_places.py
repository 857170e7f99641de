"""Where a merged model is put: the artifact store, or a folder of the user's. And what unfinished ones left.

Both are made beside their place and renamed into it when whole. A merge that was killed, or met a full disk,
leaves a ``.partial`` folder that the same merge goes on from; it takes space until then, or until it is
discarded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.runtime.artifacts import (
    Artifact,
    ArtifactStore,
    allocated_bytes,
    exclusive,
    note_inputs,
    noted_inputs,
    require_room,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantui.domain.plan import ArtifactKey, MergeStep

_OUT = "out"
"""In a lock file of the store: the user's folder that it stands for."""


_JOURNAL = "merge_journal.jsonl"
"""What the merge worker writes in an unfinished folder (streaming_merge/journal.py); PEFT's has none."""


@dataclass(frozen=True)
class Unfinished:
    """A folder that a merge left unfinished, and the disk space it takes."""

    path: Path
    bytes: int

    @property
    def goes_on(self) -> bool:
        """Whether the same merge would go on from it: a weight file of it is whole."""
        return (self.path / _JOURNAL).is_file() and any(self.path.glob("*.safetensors"))


class Place(Protocol):
    """Where the result of one merge goes."""

    def exclusive(self, cancelled: Callable[[], bool]) -> contextlib.AbstractContextManager[None]:
        """Hold it; waits for another run that is filling it."""

    def find(self) -> Artifact | None:
        """What was made there before, if it may be reused."""

    def stage(self, needed_bytes: int) -> Path:
        """Where the worker is to write; raises when there is no room or it may not."""

    def commit(self, staged: Path, made: dict[str, Any]) -> Artifact:
        """Put what the worker wrote into its place."""

    def discard(self) -> None:
        """Remove what is unfinished."""

    def unfinished(self) -> Unfinished | None:
        """What an earlier merge left."""


class ArtifactPlace:
    """An artifact of the store: found again by its key, and reused."""

    def __init__(self, store: ArtifactStore, key: ArtifactKey) -> None:
        self._store = store
        self._key = key

    def exclusive(self, cancelled: Callable[[], bool]) -> contextlib.AbstractContextManager[None]:
        """Hold the artifact's lock."""
        return self._store.exclusive(self._key, cancelled)

    def find(self) -> Artifact | None:
        """The finished artifact."""
        return self._store.find(self._key)

    def stage(self, needed_bytes: int) -> Path:
        """A place beside the artifact's own."""
        return self._store.stage(self._key, needed_bytes)

    def commit(self, staged: Path, made: dict[str, Any]) -> Artifact:
        """Write its record and rename it."""
        return self._store.commit(self._key, staged, made)

    def discard(self) -> None:
        """Remove everything staged."""
        self._store.discard(self._key)

    def unfinished(self) -> Unfinished | None:
        """The staged ``.partial``."""
        return _unfinished(self._store.partial_of(self._key))


class FolderPlace:
    """A folder that the user named: made once, never overwritten and never reused.

    Its lock is in the store and tells that ``FOLDER.partial`` is quantui's to go on from, or to remove.
    """

    def __init__(self, store: ArtifactStore, path: Path, inputs: Mapping[str, str]) -> None:
        self._path = path
        self._inputs = {**inputs, _OUT: str(path)}
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        self._lock = store.root / f"{_OUT}-{digest}.lock"

    @property
    def partial(self) -> Path:
        """Where the worker writes until it is done."""
        return self._path.with_name(f"{self._path.name}.partial")

    def exclusive(self, cancelled: Callable[[], bool]) -> contextlib.AbstractContextManager[None]:
        """Hold the folder's lock."""
        return exclusive(self._lock, cancelled)

    def find(self) -> None:
        """Nothing: a folder that exists is refused."""

    def stage(self, needed_bytes: int) -> Path:
        """The folder itself: the worker makes ``FOLDER.partial`` and renames it."""
        check_can_make(self._path)
        if os.path.lexists(self.partial) and not self._own():
            raise QuantuiError(
                "merge.foreign-partial",
                f"{self.partial} exists, and quantui did not make it.",
                "The merged model is written there before it gets its name.",
                "Move that folder away, or give another --out.",
            )
        require_room(
            self._path.parent,
            needed_bytes,
            allocated_bytes(self.partial),
            elsewhere="give an --out on a larger disk",
        )
        note_inputs(self._lock, self._inputs)
        return self._path

    def commit(self, staged: Path, made: dict[str, Any]) -> Artifact:
        """It has its name already; its record is ``merge_proof.json``."""
        self._forget()
        return Artifact(staged, {"made": made})

    def discard(self) -> None:
        """Remove ``FOLDER.partial`` if it is quantui's."""
        if self._own():
            shutil.rmtree(self.partial, ignore_errors=True)
            self._forget()

    def unfinished(self) -> Unfinished | None:
        """``FOLDER.partial``, if it is quantui's."""
        return _unfinished(self.partial) if self._own() else None

    def _forget(self) -> None:
        """A ``FOLDER.partial`` that appears from now on is somebody else's."""
        os.truncate(self._lock, 0)

    def _own(self) -> bool:
        return noted_inputs(self._lock).get(_OUT) == str(self._path)


def place_of(step: MergeStep, store: ArtifactStore) -> Place:
    """Where the result of ``step`` goes."""
    if step.to_folder:
        return FolderPlace(store, Path(step.path), step.artifact.inputs)
    return ArtifactPlace(store, step.artifact)


def check_can_make(path: Path) -> None:
    """Refuse a folder that exists, or whose parent does not."""
    if os.path.lexists(path):
        raise QuantuiError(
            "merge.exists",
            f"{path} exists.",
            "A merge never overwrites anything.",
            "Give another --out, or remove it.",
        )
    if not path.parent.is_dir():
        raise QuantuiError(
            "merge.no-parent",
            f"There is no folder {path.parent} to make {path.name} in.",
            fix="Make it first, or give another --out.",
        )


def unfinished_merges(store: ArtifactStore, inputs: Mapping[str, str]) -> list[Unfinished]:
    """What merges left whose noted inputs hold all of ``inputs``; a merge under way is none of them."""
    found: list[Unfinished] = []
    for lock, folders in _noted(store, inputs):
        with _unheld(lock) as free:
            found += folders if free else []
    return found


def discard_unfinished(store: ArtifactStore, inputs: Mapping[str, str]) -> Iterator[Unfinished]:
    """Remove what merges left whose noted inputs hold all of ``inputs``; each is told before it is removed.

    Raises ``merge.running`` (exit code 3) for a merge that is under way.
    """
    for lock, folders in _noted(store, inputs):
        with _unheld(lock) as free:
            if not free:
                raise QuantuiError(
                    "merge.running",
                    "This merge is under way.",
                    f"It writes to {folders[0].path}.",
                    "Stop it first: that gives its space back.",
                    ExitCode.DOES_NOT_FIT,
                )
            for left in folders:
                yield left
                shutil.rmtree(left.path, ignore_errors=True)
            os.truncate(lock, 0)


def kept(error: QuantuiError, left: Unfinished, step: MergeStep) -> QuantuiError:
    """``error`` with what is known of the unfinished merge: where it is, and how to give it back."""
    goes_on = f"The same merge goes on from the {format_bytes(left.bytes)} in {left.path}."
    # The worker names the folder too, but not the command.
    fix = "Free space there and run again." if str(left.path) in error.fix else error.fix
    error.fix = f"{fix} {goes_on} With --discard it gives that space back instead.".strip()
    command = shlex.join(["quantui", *step.command, "--discard"])
    error.detail = (f"give it back: {command}", *error.detail)
    return error


def _noted(
    store: ArtifactStore, inputs: Mapping[str, str]
) -> Iterator[tuple[Path, list[Unfinished]]]:
    """Lock files whose inputs hold ``inputs``, with the unfinished folders of each."""
    for lock in sorted(store.root.glob("*.lock")) if store.root.is_dir() else []:
        noted = noted_inputs(lock)
        if any(noted.get(name) != value for name, value in inputs.items()):
            continue
        if _OUT in noted:
            paths = [Path(noted[_OUT] + ".partial")]
        else:
            paths = sorted(store.root.glob(f"{lock.name.removesuffix('.lock')}.staged*"))
        folders = list(filter(None, map(_unfinished, paths)))
        if folders:
            yield lock, folders


@contextlib.contextmanager
def _unheld(lock: Path) -> Iterator[bool]:
    """Hold the lock if nobody does; gives whether."""
    descriptor = os.open(lock, os.O_RDWR)
    free = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(descriptor)


def _unfinished(path: Path) -> Unfinished | None:
    return Unfinished(path, allocated_bytes(path)) if path.is_dir() else None
