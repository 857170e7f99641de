"""One repository of a Hub cache, as its folder has it: blobs, revisions that link to them, branches and tags.

The layout is huggingface_hub's (docs/source/en/guides/manage-cache.md there). One listing a folder, one lstat an
entry, and each link is read once: tens of thousands of files take a fraction of a second.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.caches.items import ScanProblem
from quantui.runtime.caches.measuring import unread

if TYPE_CHECKING:
    from quantui.runtime.caches.hub_store import Payload, SharedStore
    from quantui.runtime.caches.mounts import Mounts

PASSED_OVER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files of desktops, which huggingface_hub passes over too (FILES_TO_IGNORE)."""

_LONGEST_REF = 4096


@dataclass(slots=True)
class Blob:
    """A name in ``blobs``. ``status``: its lstat; ``size``, ``used``, ``written`` (seconds): of what it leads to.

    ``revisions``: how many refer to it. ``payload``: what it leads to in the shared store. ``lost``: it is a link
    that leads nowhere.
    """

    path: str
    status: os.stat_result
    size: int
    used: float
    written: float
    revisions: int = 0
    payload: Payload | None = None
    lost: bool = False


@dataclass(slots=True)
class Revision:
    """A folder of ``snapshots``. ``own``: lstats and paths of all that lies in it, itself first.

    ``blobs``: names in ``blobs`` that it links to. ``plain``: files in it that are no links. ``outside``: stats, by
    path, of what it links to elsewhere.
    """

    name: str
    path: str
    own: list[tuple[os.stat_result, str]] = field(default_factory=list)
    blobs: set[str] = field(default_factory=set)
    plain: dict[str, os.stat_result] = field(default_factory=dict)
    outside: dict[str, os.stat_result] = field(default_factory=dict)
    refs: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Repository:
    """A repository's folder. ``rest``: lstats and paths of all that is neither a blob nor in a snapshot.

    ``damage``: why huggingface_hub does not list it; "" where it does. ``elsewhere``: its folder, or one that it
    keeps blobs or snapshots in, is a link, and what lies behind is not this cache's.
    """

    path: str
    blobs: dict[str, Blob] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    refs: dict[str, tuple[str, os.stat_result]] = field(default_factory=dict)
    rest: list[tuple[os.stat_result, str]] = field(default_factory=list)
    damage: str = ""
    elsewhere: bool = False
    problems: list[ScanProblem] = field(default_factory=list)


class RepositoryScan:
    """Reads one repository; :meth:`read` gives it."""

    def __init__(self, path: str, store: SharedStore, mounted: Mounts) -> None:
        self._repo = Repository(path)
        self._store = store
        self._mounted = mounted
        self._blobs = f"{path}/blobs"
        self._device = 0

    def read(self) -> Repository:
        """The repository. Raises OSError where its folder cannot be looked at."""
        repo = self._repo
        top = os.lstat(repo.path)
        repo.elsewhere = stat.S_ISLNK(top.st_mode)
        repo.rest.append((top, repo.path))
        self._device = (os.stat(repo.path) if repo.elsewhere else top).st_dev  # noqa: PTH116
        kinds = {}
        for status, path in self._listed(repo.path):
            name = os.path.basename(path)  # noqa: PTH119 - paths are text here
            kinds[name] = status.st_mode
            if stat.S_ISLNK(status.st_mode) and name in ("blobs", "snapshots", "refs"):
                repo.elsewhere = True
            repo.rest.append((status, path))
            if stat.S_ISDIR(status.st_mode) and name not in ("blobs", "snapshots", "refs"):
                repo.rest += self._below(path)
        self._read_blobs()
        self._read_refs(f"{repo.path}/refs", kinds.get("refs"))
        self._read_snapshots(f"{repo.path}/snapshots")
        return repo

    def _damaged(self, what: str) -> None:
        self._repo.damage = self._repo.damage or what

    def _listed(self, folder: str) -> list[tuple[os.stat_result, str]]:
        """lstats and paths of a folder's entries, those that vanish left out; empty where it cannot be read."""
        found = []
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISDIR(status.st_mode) and self._is_mount(status, entry.path):
                        self._repo.problems.append(
                            ScanProblem(
                                entry.path,
                                "Another file system is mounted there: it is not counted.",
                                "Unmount it first.",
                            )
                        )
                        continue
                    found.append((status, entry.path))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._repo.problems.append(unread(folder, error))
        return found

    def _is_mount(self, status: os.stat_result, path: str) -> bool:
        return status.st_dev != self._device or path in self._mounted.kinds

    def _below(self, folder: str) -> list[tuple[os.stat_result, str]]:
        """All that lies below a folder."""
        found, folders = [], [folder]
        while folders:
            for status, path in self._listed(folders.pop()):
                found.append((status, path))
                if stat.S_ISDIR(status.st_mode):
                    folders.append(path)
        return found

    def _read_blobs(self) -> None:
        for status, path in self._listed(self._blobs):
            if stat.S_ISDIR(status.st_mode):
                self._repo.rest.append((status, path))
                self._repo.rest += self._below(path)
                continue
            blob = Blob(path, status, status.st_size, status.st_atime, status.st_mtime)
            if stat.S_ISLNK(status.st_mode) and not self._follow(blob):
                self._repo.rest.append((status, path))
                continue
            self._repo.blobs[path[len(self._blobs) + 1 :]] = blob

    def _follow(self, blob: Blob) -> bool:
        """See what a blob that is a link leads to: a payload of the shared store, or another file. False: a folder."""
        try:
            behind = os.stat(blob.path)  # noqa: PTH116 - paths are text here
            target = os.readlink(blob.path)  # noqa: PTH115
        except OSError:
            blob.lost = True
            return True
        blob.size, blob.used, blob.written = behind.st_size, behind.st_atime, behind.st_mtime
        blob.payload = self._store.payload_of(blob.path, target)
        return not stat.S_ISDIR(behind.st_mode)

    def _read_refs(self, folder: str, mode: int | None) -> None:
        """Commits by branch and tag. A text that is no commit is damage, as it is to huggingface_hub."""
        if mode is not None and stat.S_ISREG(mode):
            self._damaged("its refs are a file")
            return
        for status, path in self._below(folder):
            name = path[len(folder) + 1 :]
            self._repo.rest.append((status, path))
            if stat.S_ISDIR(status.st_mode) or os.path.basename(name) in PASSED_OVER:  # noqa: PTH119
                continue
            try:
                behind = os.stat(path)  # noqa: PTH116
                if stat.S_ISDIR(behind.st_mode):
                    continue
                if not stat.S_ISREG(behind.st_mode):
                    raise OSError("it is no file")
                with open(path, "rb") as file:  # noqa: PTH123
                    commit = os.fsdecode(file.read(_LONGEST_REF))
            except OSError as error:
                self._repo.problems.append(unread(path, error))
                self._damaged(f"the branch or tag {name} cannot be read")
                continue
            self._repo.refs[name] = (commit, status)

    def _read_snapshots(self, folder: str) -> None:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            self._damaged("it has no snapshots" if missing else "its snapshots cannot be read")
            if not missing:
                self._repo.problems.append(unread(folder, error))
            return
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir()
            except OSError:
                continue
            if entry.name in PASSED_OVER:
                self._repo.rest.append((status, entry.path))
            elif not is_folder:
                self._repo.rest.append((status, entry.path))
                self._damaged(f"{entry.name[:80]} among its snapshots is no folder")
            else:
                revision = Revision(entry.name, entry.path, [(status, entry.path)])
                self._read_snapshot(revision, entry.path)
                self._repo.revisions.append(revision)
        self._name_revisions()

    def _name_revisions(self) -> None:
        there = {revision.name: revision for revision in self._repo.revisions}
        for name, (commit, _) in sorted(self._repo.refs.items()):
            if commit in there:
                there[commit].refs.append(name)
            else:
                shown = commit[:12] if commit else "nothing"
                self._damaged(f"{name} names {shown}, which is not there")

    def _read_snapshot(self, revision: Revision, folder: str) -> None:
        """What a revision's folder holds, and what its links lead to."""
        blobs, readlink = self._repo.blobs, os.readlink
        folders = [(folder, "../../blobs/")]
        while folders:
            folder, ahead = folders.pop()
            for status, path in self._listed(folder):
                revision.own.append((status, path))
                mode = status.st_mode
                if stat.S_ISLNK(mode):
                    try:
                        target = readlink(path)
                    except OSError:
                        continue
                    name = target[len(ahead) :] if target.startswith(ahead) else ""
                    blob = blobs.get(name)
                    if blob is None:
                        self._look_behind(revision, path, folder, target)
                    elif blob.lost:
                        self._damaged(f"the blob {name[:12]} is missing")
                    elif name not in revision.blobs:
                        revision.blobs.add(name)
                        blob.revisions += 1
                elif stat.S_ISDIR(mode):
                    folders.append((path, f"../{ahead}"))
                else:
                    revision.plain[path] = status

    def _look_behind(self, revision: Revision, path: str, folder: str, target: str) -> None:
        """A link that is not written as huggingface_hub writes it: another way to a blob, or out of the repository."""
        place = os.path.abspath(os.path.join(folder, target))  # noqa: PTH100, PTH118
        name = place[len(self._blobs) + 1 :] if place.startswith(f"{self._blobs}/") else ""
        blob = self._repo.blobs.get(name)
        if blob is not None and not blob.lost:
            if name not in revision.blobs:
                revision.blobs.add(name)
                blob.revisions += 1
            return
        try:
            behind = os.stat(path)  # noqa: PTH116
            if not stat.S_ISDIR(behind.st_mode):
                revision.outside[place] = os.stat(place)  # noqa: PTH116
        except OSError:
            self._damaged(f"the blob {os.path.basename(place)[:12]} is missing")  # noqa: PTH119
