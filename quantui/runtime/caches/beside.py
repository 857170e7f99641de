"""What is unfinished or broken beside the user's folders, by the lock files that the artifact store keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.runtime.artifacts import ArtifactStore, noted_inputs
from quantui.runtime.unfinished import OUT, SET_ASIDE
from quantui.runtime.unproven import BROKEN, BROKEN_RECORD, UNPROVEN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDINGS = (".partial", UNPROVEN_FOLDER, f"{UNPROVEN_FOLDER}.partial")


@dataclass(frozen=True)
class Beside:
    """A folder that a maker left. ``ending``: what follows the user's name; ``lock``: says that it is quantui's."""

    path: Path
    ending: str
    lock: Path


def left_beside() -> Iterator[Beside]:
    """Every such folder that is there and no link."""
    root = ArtifactStore().root
    for lock in sorted(root.glob(f"{OUT}-*.lock")) if root.is_dir() else ():
        noted = noted_inputs(lock)
        out, broken = noted.get(OUT), noted.get(SET_ASIDE)
        if _is_path(out):
            for ending in _ENDINGS:
                path = Path(f"{out}{ending}")
                if path.is_dir() and not path.is_symlink():
                    yield Beside(path, ending, lock)
        if _is_path(broken):
            path = Path(str(broken))
            if (path / BROKEN_RECORD).is_file() and not path.is_symlink():
                yield Beside(path, BROKEN, lock)


def _is_path(text: object) -> bool:
    return isinstance(text, str) and text.startswith("/") and "\0" not in text
