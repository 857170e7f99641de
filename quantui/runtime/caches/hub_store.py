"""The shared blobs of a Hub cache: payloads that repositories refer to by links, and the lists of who does.

huggingface_hub 2 keeps files that came through Xet once for all repositories, in ``blobs/AB/HASH`` of the cache. A
list ``HASH.refs`` names the links to it; it is a hint, and every line counts only if the link is there
(huggingface_hub/utils/_shared_blobs.py). A payload goes with the last link of its list, and never without a list.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.runtime.caches.measuring import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "blobs"
_MARKER, _MARKED = ".huggingface-shared-blobs", b"1\n"
_HASH = re.compile(r"[0-9a-f]{64}")
_REFERENCE = re.compile(r"(?:datasets|kernels|models|spaces)--[^/]+/blobs/[^/]+")
_LARGEST_LIST = 16 << 20


@dataclass(frozen=True)
class Payload:
    """A shared blob. ``allocated``: bytes on disk, its list's among them.

    ``links``: valid references, as paths; None where the list is missing or cannot be read, so that huggingface_hub
    keeps the payload whatever happens.
    """

    path: str
    key: str
    size: int
    allocated: int
    names: int
    links: frozenset[str] | None


class SharedStore:
    """The shared blobs of the cache at ``root`` (without links). Payloads are looked at when first asked for."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.folder = f"{root}/{FOLDER}"
        self.there = _is_marked(self.folder)
        self._known: dict[str, Payload | None] = {}

    def payload_of(self, link: str, target: str) -> Payload | None:
        """The payload that the link at ``link`` with the text ``target`` refers to, if it is one of this store's."""
        if not self.there:
            return None
        path = os.path.normpath(os.path.join(os.path.dirname(link), target))  # noqa: PTH118, PTH120
        return self.payload(path)

    def payload(self, path: str) -> Payload | None:
        """The payload at ``path``; None where it is not there, or is none."""
        if path not in self._known:
            self._known[path] = self._look(path)
        return self._known[path]

    def payloads(self) -> Iterator[Payload]:
        """Every payload that can be read."""
        if not self.there:
            return
        for folder in _names(self.folder):
            if len(folder) == 2:
                for name in _names(f"{self.folder}/{folder}"):
                    payload = self.payload(f"{self.folder}/{folder}/{name}")
                    if payload is not None:
                        yield payload

    def _look(self, path: str) -> Payload | None:
        above, name = os.path.split(path)
        if not _HASH.fullmatch(name) or above != f"{self.folder}/{name[:2]}":
            return None
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return None
            listed = os.lstat(f"{path}.refs").st_blocks * BLOCK if _exists(f"{path}.refs") else 0
        except OSError:
            return None
        return Payload(
            path,
            f"{status.st_dev}:{status.st_ino}",
            status.st_size,
            status.st_blocks * BLOCK + listed,
            status.st_nlink,
            self._links(path),
        )

    def _links(self, path: str) -> frozenset[str] | None:
        """The links of a payload's list that are there and lead to it."""
        try:
            text = _read(f"{path}.refs", _LARGEST_LIST).decode()
        except (OSError, UnicodeError):
            return None
        found = set()
        for line in text.splitlines():
            if not _REFERENCE.fullmatch(line) or ".." in line.split("/"):
                continue
            link = f"{self._root}/{line}"
            try:
                target = os.path.join(os.path.dirname(link), os.readlink(link))  # noqa: PTH115, PTH118, PTH120
            except FileNotFoundError:
                continue
            except OSError as error:
                import errno

                if error.errno in (errno.EINVAL, errno.ENOTDIR):
                    continue
                return None
            if os.path.normpath(target) == path:
                found.add(link)
        return frozenset(found)


def _is_marked(folder: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(folder).st_mode) and (
            _read(f"{folder}/{_MARKER}", len(_MARKED) + 1) == _MARKED
        )
    except OSError:
        return False


def _read(path: str, most: int) -> bytes:
    """The first ``most`` bytes of a regular file; raises OSError for anything else."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise IsADirectoryError(path)
        return file.read(most)


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []
