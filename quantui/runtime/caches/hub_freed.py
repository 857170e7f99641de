"""What a deletion in a Hub cache really gave back: what was there before it, less what is there after it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.runtime.caches.measuring import BLOCK, can_reflink
from quantui.runtime.caches.reflinks import LEAST, shared_extents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True)
class Entry:
    """A name: its inode, bytes on disk that only its inode has, and how many names that inode has."""

    key: tuple[int, int]
    allocated: int
    names: int
    folder: bool


def look(repo: str, others: Iterable[str] = ()) -> dict[str, Entry]:
    """Every name at and below ``repo``, and those of ``others`` that are there; links are not followed."""
    found: dict[str, Entry] = {}
    reflinks = can_reflink(repo)
    for path in (repo, *others):
        _note(found, path, reflinks)
    folders = [repo] if repo in found and found[repo].folder else []
    while folders:
        try:
            with os.scandir(folders.pop()) as listing:
                for entry in listing:
                    _note(found, entry.path, reflinks)
                    if entry.path in found and found[entry.path].folder:
                        folders.append(entry.path)
        except OSError:
            continue
    return found


def freed(
    before: Mapping[str, Entry], after: Mapping[str, Entry], of: Callable[[str], str]
) -> dict[str, tuple[int, int]]:
    """Bytes freed and files gone, by what ``of`` says that a path belongs to.

    An inode is freed when all its names are gone, and counts once, for the first of them. One that has names elsewhere
    is not freed.
    """
    left: dict[tuple[int, int], int] = {}
    for path, entry in before.items():
        if path not in after:
            left[entry.key] = left.get(entry.key, 0) + 1
    found: dict[str, tuple[int, int]] = {}
    for path, entry in before.items():
        if path in after and after[path].key == entry.key:
            continue
        owner = of(path)
        size, files = found.get(owner, (0, 0))
        if entry.folder:
            size += entry.allocated
        else:
            files += 1
            gone = left.get(entry.key, 0)
            size += entry.allocated if gone >= entry.names else 0
            # Counted once, and never again for another of its names.
            left[entry.key] = -1
        found[owner] = (size, files)
    return found


def _note(found: dict[str, Entry], path: str, reflinks: bool) -> None:
    try:
        status = os.lstat(path)
    except OSError:
        return
    allocated = status.st_blocks * BLOCK
    if reflinks and allocated >= LEAST and stat.S_ISREG(status.st_mode):
        allocated -= shared_extents(path, allocated)
    key = (status.st_dev, status.st_ino)
    found[path] = Entry(key, allocated, status.st_nlink, stat.S_ISDIR(status.st_mode))
