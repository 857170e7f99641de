"""What a tree of folders takes on the disk, and what deleting it would give back."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Claim, DiskUse, ScanProblem
from quantui.runtime.caches.mounts import mounts
from quantui.runtime.caches.reflinks import LEAST, SHARING, shared_extents

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 512
"""Bytes of a block of ``st_blocks``, whatever the file system's own (stat(2))."""

_MOST_PROBLEMS = 20
_MARK_BITS = (1 << 63) - 1


@dataclass(frozen=True)
class Stamp:
    """Tells whether a tree is still what was measured. Neither reading it nor renaming its top changes anything of it.

    ``device`` and ``inode`` of the top (0: it was not there), the number of ``entries`` below it, and a ``mark`` that
    sums up the inode, the length and the time of writing (st_mtime_ns) of each, links' targets left alone. Times of
    change (st_ctime) say nothing here: deleting a hard link elsewhere moves them.
    """

    device: int = 0
    inode: int = 0
    entries: int = 0
    mark: int = 0


@dataclass(frozen=True)
class Tree:
    """A measured tree. ``files``: what is no folder. Times in seconds since the epoch, None: unknown.

    ``used_at``: the newest reading or writing of a file, as far as the file system keeps it; that of small records
    (JSON) is left out, since whoever lists the tree reads them.
    """

    use: DiskUse
    files: int
    used_at: float | None
    problems: tuple[ScanProblem, ...]
    stamp: Stamp


class Blocks:
    """Adds up blocks on disk: each inode once, those with names elsewhere as claims."""

    def __init__(self, *, reflinks: bool) -> None:
        self.apparent = 0
        self._reflinks = reflinks
        self._alone = 0
        self._linked: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._claims: list[Claim] = []

    def add(self, status: os.stat_result, path: str) -> None:
        """Count the entry at ``path``, whose lstat is ``status``."""
        allocated = status.st_blocks * BLOCK
        if not stat.S_ISREG(status.st_mode):
            self._alone += allocated
            return
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            before = self._linked.get(key)
            if before is not None:
                self._linked[key] = (before[0] + 1, before[1], before[2])
                return
            allocated -= self._shared(status, path, allocated)
            self._linked[key] = (1, status.st_nlink, allocated)
        else:
            self._alone += allocated - self._shared(status, path, allocated)
        self.apparent += status.st_size

    def use(self) -> DiskUse:
        """What was counted so far."""
        alone = self._alone
        claims = list(self._claims)
        for (device, inode), (here, needed, allocated) in self._linked.items():
            if here >= needed:
                alone += allocated
            else:
                claims.append(Claim(f"{device}:{inode}", here, needed, allocated))
        return DiskUse(self.apparent, alone, tuple(claims))

    def _shared(self, status: os.stat_result, path: str, allocated: int) -> int:
        """Bytes of it that reflinked copies hold too, noted as a claim that nobody can meet."""
        if not self._reflinks or allocated < LEAST:
            return 0
        shared = shared_extents(path, allocated)
        if shared:
            # Every name of the file may be among what is deleted; the copies never are.
            key = f"reflink:{status.st_dev}:{status.st_ino}"
            self._claims.append(Claim(key, 1, status.st_nlink + 1, shared))
        return shared


def never() -> bool:
    """False: nothing stops it."""
    return False


def can_reflink(path: str) -> bool:
    """Whether the file system that ``path`` lies on lets files share extents."""
    return mounts().kind_at(os.path.realpath(path)) in SHARING


def measure_tree(path: str, *, stop: Callable[[], bool] = never) -> Tree:
    """Measure the folder, or the file, at ``path``.

    Links count as themselves and are not followed; what is mounted below is left out and told; what cannot be read
    is told in ``problems``; what vanishes meanwhile is left out. ``stop`` ends it early with what was counted.
    """
    top = os.path.abspath(path)  # noqa: PTH100 - paths are text here
    above, name = os.path.split(top)
    # The table of mounts has no links in its paths; those of a link to the top would be other ones.
    real = os.path.join(os.path.realpath(above), name)  # noqa: PTH118
    table = mounts()
    counted = Blocks(reflinks=table.kind_at(real) in SHARING)
    try:
        status = os.lstat(top)
    except (OSError, ValueError) as error:
        return Tree(DiskUse(), 0, None, (unread(path, error),), Stamp())
    counted.add(status, top)
    device, inode = status.st_dev, status.st_ino
    is_folder = stat.S_ISDIR(status.st_mode)
    # Renaming the top may touch its own times; a file that is its own top has no entries to tell of it.
    mark = 0 if is_folder else _mark(status)
    entries, files = 0, int(not is_folder)
    changed, used = status.st_mtime, max(status.st_mtime, 0.0 if is_folder else status.st_atime)
    problems: list[ScanProblem] = []
    folders = [top] if is_folder else []
    while folders and not stop():
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        problems.append(unread(entry.path, error))
                        continue
                    mode = status.st_mode
                    if stat.S_ISDIR(mode):
                        place = real + entry.path[len(top) :]
                        if status.st_dev != device or place in table.kinds:
                            problems.append(_mounted(entry.path))
                            continue
                        folders.append(entry.path)
                    else:
                        files += 1
                        if stat.S_ISREG(mode) and not entry.name.endswith((".json", ".jsonl")):
                            used = max(used, status.st_atime)
                    entries += 1
                    counted.add(status, entry.path)
                    changed = max(changed, status.st_mtime)
                    mark += _mark(status)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(unread(folder, error))
    stamp = Stamp(device, inode, entries, mark & _MARK_BITS)
    return Tree(counted.use(), files, max(used, changed), _few(path, problems), stamp)


def _mark(status: os.stat_result) -> int:
    """A number that another content, place or time of writing makes another; a folder's length is nobody's business."""
    length = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return hash((status.st_ino, length, status.st_mtime_ns))


def unread(path: str, error: Exception) -> ScanProblem:
    """A place that cannot be looked into."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, FileNotFoundError):
        return ScanProblem(path, "It is not there any more.")
    return ScanProblem(path, f"It cannot be read: {reason}.", "It must be readable for this user.")


def _mounted(path: str) -> ScanProblem:
    return ScanProblem(
        path, "Another file system is mounted there: it is not counted.", "Unmount it first."
    )


def _few(path: str, problems: list[ScanProblem]) -> tuple[ScanProblem, ...]:
    """The first problems; how many more there are is one more."""
    more = len(problems) - _MOST_PROBLEMS
    if more > 0:
        return (*problems[:_MOST_PROBLEMS], ScanProblem(path, f"{more} more cannot be read."))
    return tuple(problems)
