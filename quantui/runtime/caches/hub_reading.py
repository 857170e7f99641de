"""Reading one repository of a Hub cache: one listing a folder, one lstat an entry, and each link is read once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from quantui.domain.caches.items import ScanProblem
from quantui.runtime.caches.hub_repository import PASSED_OVER, Blob, Repository, Revision
from quantui.runtime.caches.measuring import unread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.runtime.caches.hub_store import SharedStore
    from quantui.runtime.caches.mounts import Mounts

_LONGEST_REF = 4096
_PARTS = ("blobs", "snapshots", "refs")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def read_repository(path: str, store: SharedStore, mounted: Mounts) -> Repository:
    """The repository at ``path``. Raises OSError where its folder cannot be looked at."""
    return _Reading(path, store, mounted).read()


class _Reading:
    def __init__(self, path: str, store: SharedStore, mounted: Mounts) -> None:
        self._repo = Repository(path, os.lstat(path))
        self._store = store
        self._mounts = mounted.kinds
        self._blobs = f"{path}/blobs"
        self._device = 0

    def read(self) -> Repository:
        """All of it."""
        repo = self._repo
        linked = stat.S_ISLNK(repo.folder.st_mode)
        self._device = (os.stat(repo.path) if linked else repo.folder).st_dev  # noqa: PTH116
        repo.rest.add(repo.folder, repo.path)
        kinds = {}
        for name, status, _ in self._listed(repo.path):
            kinds[name] = status.st_mode
            path = f"{repo.path}/{name}"
            if not linked:
                repo.rest.add(status, path)
            if name in _PARTS:
                repo.elsewhere |= stat.S_ISLNK(status.st_mode)
            elif stat.S_ISDIR(status.st_mode) and not linked:
                for below, one in self._below(path):
                    repo.rest.add(one, below)
        repo.elsewhere |= linked
        self._read_blobs()
        self._read_refs(f"{repo.path}/refs", kinds.get("refs"))
        self._read_snapshots(f"{repo.path}/snapshots")
        return repo

    def _listed(self, folder: str) -> Iterator[tuple[str, os.stat_result, int]]:
        """Names and lstats of a folder's entries, with the folder's descriptor: short paths are found faster.

        What vanishes is left out; what cannot be read, and what is mounted there, is a problem.
        """
        try:
            fd = os.open(folder, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._repo.problems.append(unread(folder, error))
            return
        try:
            with os.scandir(fd) as listing:
                for entry in listing:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if entry.is_dir(follow_symlinks=False) and (
                        status.st_dev != self._device or f"{folder}/{entry.name}" in self._mounts
                    ):
                        self._repo.problems.append(_mounted(f"{folder}/{entry.name}"))
                        continue
                    yield entry.name, status, fd
        except OSError as error:
            self._repo.problems.append(unread(folder, error))
        finally:
            os.close(fd)

    def _below(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Paths and lstats of all that lies below a folder."""
        folders = [folder]
        while folders:
            above = folders.pop()
            for name, status, _ in self._listed(above):
                path = f"{above}/{name}"
                if stat.S_ISDIR(status.st_mode):
                    folders.append(path)
                yield path, status

    def _read_blobs(self) -> None:
        repo, folder = self._repo, self._blobs
        for name, status, _ in self._listed(folder):
            path = f"{folder}/{name}"
            mode = status.st_mode
            if stat.S_ISREG(mode):
                repo.blobs[name] = Blob(path, status, status)
            elif stat.S_ISDIR(mode):
                repo.rest.add(status, path)
                for below, one in self._below(path):
                    repo.rest.add(one, below)
            elif stat.S_ISLNK(mode):
                self._follow(name, Blob(path, status, status))
            else:
                repo.blobs[name] = Blob(path, status, status)

    def _follow(self, name: str, blob: Blob) -> None:
        """See what a blob that is a link leads to: a payload of the shared store, another file, nothing, a folder."""
        try:
            blob.behind = os.stat(blob.path)  # noqa: PTH116
            blob.payload = self._store.payload_of(blob.path, os.readlink(blob.path))  # noqa: PTH115
        except OSError:
            blob.lost = True
        if stat.S_ISDIR(blob.behind.st_mode):
            self._repo.rest.add(blob.status, blob.path)
        else:
            self._repo.blobs[name] = blob

    def _read_refs(self, folder: str, mode: int | None) -> None:
        """Commits by branch and tag. A text that is no commit is damage, as it is to huggingface_hub."""
        repo = self._repo
        if mode is not None and stat.S_ISREG(mode):
            repo.damaged("its refs are a file")
            return
        for path, status in self._below(folder):
            name = path[len(folder) + 1 :]
            if stat.S_ISDIR(status.st_mode) or os.path.basename(name) in PASSED_OVER:  # noqa: PTH119
                repo.rest.add(status, path)
                continue
            try:
                behind = os.stat(path)  # noqa: PTH116
                if stat.S_ISDIR(behind.st_mode):
                    repo.rest.add(status, path)
                    continue
                repo.refs[name] = (_ref(path, behind), status)
            except OSError as error:
                repo.rest.add(status, path)
                repo.problems.append(unread(path, error))
                repo.damaged(f"the branch or tag {name} cannot be read")

    def _read_snapshots(self, folder: str) -> None:
        repo = self._repo
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            repo.damaged("it has no snapshots")
            return
        except OSError as error:
            repo.damaged("its snapshots cannot be read")
            repo.problems.append(unread(folder, error))
            return
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir()
            except OSError:
                continue
            if is_folder and entry.name not in PASSED_OVER:
                revision = Revision(entry.name, entry.path, status)
                revision.own.add(status, entry.path)
                self._read_snapshot(revision)
                repo.revisions.append(revision)
                continue
            repo.rest.add(status, entry.path)
            if entry.name not in PASSED_OVER:
                repo.damaged(f"{entry.name[:80]} among its snapshots is no folder")
        there = {revision.name: revision for revision in repo.revisions}
        for name, (commit, _) in sorted(repo.refs.items()):
            if commit in there:
                there[commit].refs.append(name)
            else:
                repo.damaged(f"{name} names {commit[:12] or 'nothing'}, which is not there")

    def _read_snapshot(self, revision: Revision) -> None:
        """What a revision's folder holds, and what its links lead to."""
        known, mine = self._repo.blobs, revision.blobs
        own, counted = revision.own, not stat.S_ISLNK(revision.folder.st_mode)
        readlink, is_link, is_folder = os.readlink, stat.S_ISLNK, stat.S_ISDIR
        blocks = 0
        folders = [(revision.path, "../../blobs/")]
        while folders:
            folder, ahead = folders.pop()
            skip = len(ahead)
            for name, status, fd in self._listed(folder):
                mode = status.st_mode
                if is_link(mode):
                    if status.st_nlink == 1:
                        blocks += status.st_blocks
                    elif counted:
                        own.add(status, f"{folder}/{name}")
                    try:
                        target = readlink(name, dir_fd=fd)
                    except OSError:
                        # It is gone, or another thing by now.
                        continue
                    blob = known.get(target[skip:]) if target.startswith(ahead) else None
                    if blob is None:
                        self._look_behind(revision, folder, name, target)
                    elif blob.lost:
                        self._repo.damaged(f"the blob {target[skip:][:12]} is missing")
                    elif blob.path not in mine:
                        mine[blob.path] = blob
                        blob.revisions += 1
                    continue
                if counted:
                    own.add(status, f"{folder}/{name}")
                if is_folder(mode):
                    folders.append((f"{folder}/{name}", f"../{ahead}"))
                else:
                    revision.plain.append(status)
        own.blocks += blocks if counted else 0

    def _look_behind(self, revision: Revision, folder: str, name: str, target: str) -> None:
        """A link that is not written as huggingface_hub writes it: another way to a blob, or out of the repository."""
        place = os.path.abspath(os.path.join(folder, target))  # noqa: PTH100, PTH118
        within = place[len(self._blobs) + 1 :] if place.startswith(f"{self._blobs}/") else ""
        blob = self._repo.blobs.get(within)
        if blob is not None and not blob.lost:
            if blob.path not in revision.blobs:
                revision.blobs[blob.path] = blob
                blob.revisions += 1
            return
        try:
            if not stat.S_ISDIR(os.stat(f"{folder}/{name}").st_mode):  # noqa: PTH116
                revision.outside[place] = os.stat(place)  # noqa: PTH116
        except OSError:
            self._repo.damaged(f"the blob {os.path.basename(place)[:12]} is missing")  # noqa: PTH119


def _ref(path: str, status: os.stat_result) -> str:
    """The commit in a file of ``refs``."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    with open(path, "rb") as file:  # noqa: PTH123
        return os.fsdecode(file.read(_LONGEST_REF))


def _mounted(path: str) -> ScanProblem:
    return ScanProblem(
        path, "Another file system is mounted there: it is not counted.", "Unmount it first."
    )
