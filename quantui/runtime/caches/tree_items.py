"""A thing on disk as an item: its folder or file measured, with what its source knows of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import CacheItem, Kind, ScanProblem
from quantui.runtime.caches.measuring import measure_tree, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRASH = ".quantui-trash"
"""Where a root keeps what was moved away."""

Found = CacheItem | ScanProblem


def tree_item(
    kind: Kind,
    path: Path,
    root: Path,
    *,
    name: str = "",
    stop: Callable[[], bool] | None = None,
    **known: Any,  # noqa: ANN401 - fields of CacheItem
) -> Iterator[Found]:
    """The item of a folder or file, measured now; before it what could not be read of it.

    ``known``: fields of :class:`CacheItem` that its source can tell. Nothing is given for what is gone, or where
    ``stop()`` ended the measuring.
    """
    tree = measure_tree(str(path), stop=stop or never)
    if not tree.stamp.inode or (stop is not None and stop()):
        return
    yield from tree.problems
    known.setdefault("used_at", tree.used_at)
    known.setdefault("files", tree.files)
    # As dataclasses.astuple gives it, which takes longer than measuring a run.
    known.setdefault("stamp", tuple(vars(tree.stamp).values()))
    yield CacheItem(kind, name or path.name, str(path), str(root), tree.use, **known)


def folders_in(root: Path) -> tuple[list[Path], list[Found]]:
    """The folders right in ``root``, sorted, no links and no trash; and the problem of one that cannot be read."""
    folders, _, problems = entries_in(root)
    return folders, problems


def entries_in(root: Path) -> tuple[list[Path], list[Path], list[Found]]:
    """Folders and files right in ``root``, each sorted, no links and no trash; and what could not be read."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name == TRASH:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    files.append(Path(entry.path))
    except FileNotFoundError:
        return [], [], []
    except OSError as error:
        return [], [], [unreadable(root, error)]
    return sorted(folders), sorted(files), []


def unreadable(path: Path, error: OSError) -> ScanProblem:
    """The problem of a folder that cannot be read."""
    return ScanProblem(
        str(path),
        f"It cannot be read: {error.strerror or error}.",
        f"ls -ld {path}: it must be a folder this user may read",
    )
