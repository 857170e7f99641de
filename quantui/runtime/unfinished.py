"""What makers left unfinished: where it lies, what it takes, and giving that back.

A lock file of the store says for which inputs it is, and names the folder of the user's that it stands for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.runtime.artifacts import ArtifactStore, allocated_bytes, noted_inputs
from quantui.runtime.unproven import BROKEN, UNPROVEN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantui.domain.plan import MergeStep

OUT = "out"
"""In a lock file of the store: the user's folder that it stands for."""

SET_ASIDE = "set aside"
"""In such a lock file, once the result did not pass its proof: the folder that it was moved to."""

_RECIPE = "recipe"
"""The input that only a quantized artifact has."""


_JOURNAL = "merge_journal.jsonl"
"""What the merge worker writes in an unfinished folder (streaming_merge/journal.py); PEFT's has none."""


@dataclass(frozen=True)
class Unfinished:
    """A folder that a maker left unfinished, and the disk space it takes."""

    path: Path
    bytes: int

    @property
    def goes_on(self) -> bool:
        """Whether the same merge would go on from it: a weight file of it is whole."""
        return (self.path / _JOURNAL).is_file() and any(self.path.glob("*.safetensors"))


def unfinished_merges(store: ArtifactStore, inputs: Mapping[str, str]) -> list[Unfinished]:
    """What merges left whose noted inputs hold all of ``inputs``; a merge under way is none of them."""
    return _not_under_way(_noted(store, inputs))


def unfinished_quantizations(store: ArtifactStore) -> list[Unfinished]:
    """What quantizations left, one that is made and not proven included; one under way is none of them."""
    return _not_under_way(_noted(store, {}, quantized=True))


def broken_results(store: ArtifactStore) -> list[Unfinished]:
    """What did not pass its proof, of the store."""
    folders = sorted(store.root.glob(f"*{BROKEN}")) if store.root.is_dir() else []
    return list(filter(None, map(unfinished_at, folders)))


def _not_under_way(noted: Iterator[tuple[Path, list[Unfinished]]]) -> list[Unfinished]:
    found: list[Unfinished] = []
    for lock, folders in noted:
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
    store: ArtifactStore, inputs: Mapping[str, str], *, quantized: bool = False
) -> Iterator[tuple[Path, list[Unfinished]]]:
    """Lock files of merges, or of quantizations, whose inputs hold ``inputs``, with the unfinished folders of each."""
    for lock in sorted(store.root.glob("*.lock")) if store.root.is_dir() else []:
        noted = noted_inputs(lock)
        if any(noted.get(name) != value for name, value in inputs.items()):
            continue
        if (_RECIPE in noted) != quantized:
            continue
        if OUT in noted:
            ends = (UNPROVEN_FOLDER, f"{UNPROVEN_FOLDER}.partial") if quantized else (".partial",)
            paths = [Path(noted[OUT] + end) for end in ends]
        else:
            paths = sorted(store.root.glob(f"{lock.name.removesuffix('.lock')}.staged*"))
        folders = list(filter(None, map(unfinished_at, paths)))
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


def unfinished_at(path: Path) -> Unfinished | None:
    """What there is of a folder; None when there is none."""
    return Unfinished(path, allocated_bytes(path)) if path.is_dir() else None
