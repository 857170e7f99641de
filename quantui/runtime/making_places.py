"""Where a checkpoint that is made is put: the artifact store, or a folder of the user's. And what is left there.

Both are made beside their place and renamed into it when whole, and when they have to be proven first, then.
A merge that was killed, or met a full disk, leaves a ``.partial`` folder that the same merge goes on from; it
takes space until then, or until it is discarded. What did not pass its proof is moved to ``NAME.broken``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantui.domain.errors import QuantuiError
from quantui.domain.plan import MergeStep
from quantui.runtime.artifacts import (
    Artifact,
    ArtifactStore,
    Origin,
    allocated_bytes,
    exclusive,
    note_inputs,
    noted_inputs,
    require_room,
    write_record,
    write_whole,
)
from quantui.runtime.made_records import PROOF, read_proof
from quantui.runtime.unfinished import OUT, SET_ASIDE, Unfinished, unfinished_at
from quantui.runtime.unproven import BROKEN, UNPROVEN_FOLDER, is_set_aside, set_aside

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from quantui.domain.plan import ArtifactKey, QuantizeStep


class Place(Protocol):
    """Where the result of one merge, or of one quantization, goes."""

    def exclusive(self, cancelled: Callable[[], bool]) -> contextlib.AbstractContextManager[None]:
        """Hold it; waits for another run that is filling it."""

    def find(self) -> Artifact | None:
        """What was made there before, if it may be reused."""

    def stage(self, needed_bytes: int) -> Path:
        """Where the worker is to write; raises when there is no room or it may not."""

    def staged(self) -> Path:
        """What :meth:`stage` gives, whether it is there or not."""

    def commit(self, staged: Path, made: dict[str, Any], origin: Origin) -> Artifact:
        """Put what the worker wrote into its place."""

    def set_aside(self, record: dict[str, Any]) -> Path:
        """Move what did not pass its proof to ``NAME.broken``, with ``record``; gives that."""

    def discard(self) -> None:
        """Remove what is unfinished."""

    def unfinished(self) -> Unfinished | None:
        """What an earlier maker left."""


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
        """A place beside the artifact's own; what an earlier proof refused is removed."""
        shutil.rmtree(self._broken, ignore_errors=True)
        return self._store.stage(self._key, needed_bytes)

    def staged(self) -> Path:
        """``NAME.staged``."""
        return self._store.staged_of(self._key)

    def commit(self, staged: Path, made: dict[str, Any], origin: Origin) -> Artifact:
        """Write its record and rename it."""
        return self._store.commit(self._key, staged, made, origin)

    def set_aside(self, record: dict[str, Any]) -> Path:
        """``NAME.broken``, which is never found."""
        return set_aside(self.staged(), self._broken, record)

    @property
    def _broken(self) -> Path:
        place = self._store.path_of(self._key)
        return place.with_name(place.name + BROKEN)

    def discard(self) -> None:
        """Remove everything staged."""
        self._store.discard(self._key)

    def unfinished(self) -> Unfinished | None:
        """The staged ``.partial``."""
        return unfinished_at(self._store.partial_of(self._key))


class FolderPlace:
    """A folder that the user named: made once, never overwritten and never reused.

    Its lock is in the store and tells that what lies beside it is quantui's to go on from, or to remove.
    A merge proves itself while it writes; what is ``proven_later`` has its name only after that.
    """

    def __init__(
        self, store: ArtifactStore, path: Path, key: ArtifactKey, *, proven_later: bool = False
    ) -> None:
        self._path = path
        self._key = key
        self._inputs = {**key.inputs, OUT: str(path)}
        self._proven_later = proven_later
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        self._lock = store.root / f"{OUT}-{digest}.lock"

    def staged(self) -> Path:
        """The folder itself, or a name beside it."""
        return self._beside(UNPROVEN_FOLDER) if self._proven_later else self._path

    @property
    def partial(self) -> Path:
        """Where the worker writes until it is done."""
        staged = self.staged()
        return staged.with_name(f"{staged.name}.partial")

    def exclusive(self, cancelled: Callable[[], bool]) -> contextlib.AbstractContextManager[None]:
        """Hold the folder's lock."""
        return exclusive(self._lock, cancelled)

    def find(self) -> None:
        """Nothing: a folder that exists is refused."""

    def stage(self, needed_bytes: int) -> Path:
        """Where the worker makes ``NAME.partial`` and gives it its name."""
        check_can_make(self._path, subject=_subject(self._proven_later))
        for left in self._beside_it():
            own = is_set_aside(left) if left.name.endswith(BROKEN) else self._own()
            if os.path.lexists(left) and not own:
                raise QuantuiError(
                    f"{_subject(self._proven_later)}.foreign-partial",
                    f"{left} exists, and quantui did not make it.",
                    "What is made is written there before it gets its name.",
                    "Move that folder away, or give another --out.",
                )
        if self._proven_later:
            for left in self._beside_it():
                shutil.rmtree(left, ignore_errors=True)
        require_room(
            self._path.parent,
            needed_bytes,
            allocated_bytes(self.partial),
            elsewhere="give an --out on a larger disk",
        )
        note_inputs(self._lock, self._inputs)
        return self.staged()

    def commit(self, staged: Path, made: dict[str, Any], origin: Origin) -> Artifact:
        """Give it its name; the record of a merge is ``merge_proof.json``, which has it already."""
        record: dict[str, Any] = {"made": made}
        if self._proven_later:
            record = write_record(staged, self._key, made, origin)
            check_can_make(self._path, subject=_subject(self._proven_later))
            staged.rename(self._path)
        elif proof := read_proof(self._path):
            write_whole(self._path / PROOF, {**proof, **origin.told()})
        self._forget()
        return Artifact(self._path, record)

    def set_aside(self, record: dict[str, Any]) -> Path:
        """``FOLDER.broken``."""
        moved = set_aside(self.staged(), self._beside(BROKEN), record)
        self._forget()
        note_inputs(self._lock, {SET_ASIDE: str(moved)})
        return moved

    def discard(self) -> None:
        """Remove what lies unfinished beside the folder, if it is quantui's."""
        if self._own():
            shutil.rmtree(self.partial, ignore_errors=True)
            if self._proven_later:
                shutil.rmtree(self.staged(), ignore_errors=True)
            self._forget()

    def unfinished(self) -> Unfinished | None:
        """``FOLDER.partial``, if it is quantui's."""
        return unfinished_at(self.partial) if self._own() else None

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def _beside_it(self) -> list[Path]:
        """The names that are taken besides the folder's own."""
        if not self._proven_later:
            return [self.partial]
        return [self.partial, self.staged(), self._beside(BROKEN)]

    def _forget(self) -> None:
        """What appears beside the folder from now on is somebody else's."""
        os.truncate(self._lock, 0)

    def _own(self) -> bool:
        return noted_inputs(self._lock).get(OUT) == str(self._path)


def place_of(step: MergeStep | QuantizeStep, store: ArtifactStore) -> Place:
    """Where the result of ``step`` goes."""
    if step.to_folder:
        later = not isinstance(step, MergeStep)
        return FolderPlace(store, Path(step.path), step.artifact, proven_later=later)
    return ArtifactPlace(store, step.artifact)


def _subject(proven_later: bool) -> str:
    return "quantize" if proven_later else "merge"


def folder_to_make(out: str | os.PathLike[str] | None, *, subject: str) -> str | None:
    """``out`` from the root, found to be a folder that can be made; ``subject`` as in :func:`check_can_make`."""
    if out is None:
        return None
    folder = Path(out).expanduser().absolute()
    check_can_make(folder, subject=subject)
    return str(folder)


def check_can_make(path: Path, *, subject: str = "merge") -> None:
    """Refuse a folder that exists, or whose parent does not; ``subject`` begins the error's code."""
    if os.path.lexists(path):
        raise QuantuiError(
            f"{subject}.exists",
            f"{path} exists.",
            "Nothing is ever overwritten.",
            "Give another --out, or remove it.",
        )
    if not path.parent.is_dir():
        raise QuantuiError(
            f"{subject}.no-parent",
            f"There is no folder {path.parent} to make {path.name} in.",
            fix="Make it first, or give another --out.",
        )
