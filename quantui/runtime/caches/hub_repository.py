"""One repository of a Hub cache, as its folder has it: blobs, revisions that link to them, branches and tags.

The layout is huggingface_hub's (docs/source/en/guides/manage-cache.md there).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.runtime.caches.measuring import BLOCK
from quantui.runtime.caches.reflinks import LEAST

if TYPE_CHECKING:
    from quantui.domain.caches.items import ScanProblem
    from quantui.runtime.caches.hub_store import Payload

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space", "kernels": "kernel"}
"""What a folder's name begins with, and the type that it means (huggingface_hub's REPO_TYPES_MAPPING)."""

PASSED_OVER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files of desktops, which huggingface_hub passes over too (FILES_TO_IGNORE)."""


@dataclass(slots=True)
class Blob:
    """A name in ``blobs``. ``status``: its lstat; ``behind``: the stat of what it leads to, itself but for links.

    ``revisions``: how many refer to it. ``payload``: what it leads to in the shared store. ``lost``: it is a link
    that leads nowhere.
    """

    path: str
    status: os.stat_result
    behind: os.stat_result
    revisions: int = 0
    payload: Payload | None = None
    lost: bool = False

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.behind.st_size


@dataclass(slots=True)
class Lot:
    """Entries whose names need not be known: ``blocks`` of those that only they hold, and the others one by one.

    ``apart``: lstats and paths of files with several names, and of files so large that reflinks are looked for.
    """

    blocks: int = 0
    apart: list[tuple[os.stat_result, str]] = field(default_factory=list)

    def add(self, status: os.stat_result, path: str) -> None:
        """Count an entry."""
        if is_apart(status):
            self.apart.append((status, path))
        else:
            self.blocks += status.st_blocks


def is_apart(status: os.stat_result) -> bool:
    """Whether others may hold the bytes of this file too, by a hard link or a reflink."""
    if stat.S_ISDIR(status.st_mode):
        return False
    return status.st_nlink > 1 or (
        status.st_blocks >= LEAST // BLOCK and stat.S_ISREG(status.st_mode)
    )


@dataclass(slots=True)
class Revision:
    """A folder of ``snapshots``. ``own``: all that lies in it, itself too; of one that is a link, the link alone.

    ``blobs``: what in ``blobs`` it links to, by name. ``plain``: files in it that are no links. ``outside``: stats, by
    path, of what it links to elsewhere. ``leads_out``: deleting it by its links would reach beyond its repository.
    """

    name: str
    path: str
    folder: os.stat_result
    own: Lot = field(default_factory=Lot)
    blobs: dict[str, Blob] = field(default_factory=dict)
    plain: list[os.stat_result] = field(default_factory=list)
    outside: dict[str, os.stat_result] = field(default_factory=dict)
    refs: list[str] = field(default_factory=list)

    @property
    def leads_out(self) -> bool:
        """Whether it is a link, or links to what is no blob of its repository."""
        return bool(self.outside) or stat.S_ISLNK(self.folder.st_mode)

    @property
    def size(self) -> int:
        """Bytes as ``hf cache ls --revisions`` counts them."""
        return (
            sum(blob.behind.st_size for blob in self.blobs.values())
            + sum(status.st_size for status in self.plain)
            + sum(status.st_size for status in self.outside.values())
        )

    @property
    def files(self) -> int:
        """Files in it, each once."""
        return len(self.blobs) + len(self.plain) + len(self.outside)


@dataclass(slots=True)
class Repository:
    """A repository's folder. ``rest``: all that is neither a blob nor in a snapshot, itself too.

    ``refs``: commits and lstats by branch or tag. ``damage``: why huggingface_hub does not list it; "" where it
    does. ``elsewhere``: its folder, or the one of its blobs or snapshots, is a link, and what lies behind is not this
    cache's; ``rest`` is then what goes with the links.
    """

    path: str
    folder: os.stat_result
    blobs: dict[str, Blob] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    refs: dict[str, tuple[str, os.stat_result]] = field(default_factory=dict)
    rest: Lot = field(default_factory=Lot)
    damage: str = ""
    elsewhere: bool = False
    problems: list[ScanProblem] = field(default_factory=list)

    @property
    def type(self) -> str:
        """model, dataset, space or kernel."""
        kind = os.path.basename(self.path).partition("--")[0]  # noqa: PTH119 - paths are text here
        return TYPES.get(kind, kind)

    @property
    def id(self) -> str:
        """Its name on the Hub: untrusted text."""
        return os.path.basename(self.path).partition("--")[2].replace("--", "/")  # noqa: PTH119

    def outside(self) -> dict[str, os.stat_result]:
        """What its revisions link to elsewhere, by path."""
        return {path: one for revision in self.revisions for path, one in revision.outside.items()}

    def damaged(self, what: str) -> None:
        """Note the first damage that is met."""
        self.damage = self.damage or what
