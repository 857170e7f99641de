"""Paths of processes that see other mounts than this one, such as those in containers, as this process sees them.

What ``/proc/PID/fd`` leads to, and what a command line names, is a path among the process's own mounts. A folder of
this machine that is mounted into a container lies on the same file system there, at another place: proc(5),
``mountinfo``, fields 3 (device), 4 (what of the file system is mounted) and 5 (where).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """``part`` of the file system ``device`` (as "8:1") is mounted at ``place``."""

    device: str
    part: str
    place: str


def read_mounts(table: bytes) -> tuple[Mount, ...]:
    """The mounts of a ``mountinfo``, in its order: a later one hides an earlier one at the same place."""
    found: list[Mount] = []
    for line in table.splitlines():
        fields = line.split(b" ")
        if len(fields) > 5:
            part, place = (
                os.fsdecode(_ESCAPED.sub(lambda code: bytes([int(code[1], 8) & 0xFF]), text))
                for text in fields[3:5]
            )
            found.append(Mount(fields[2].decode("ascii", "replace"), part, place))
    return tuple(found)


class Translation:
    """From the paths of a process with the mounts ``there`` to those of one with the mounts ``here``."""

    def __init__(self, there: Sequence[Mount], here: Sequence[Mount]) -> None:
        self._there = sorted(enumerate(there), key=lambda one: (-len(one[1].place), -one[0]))
        self._here = here

    def here(self, path: str) -> tuple[str, ...]:
        """Where ``path`` of the other process lies here; () where nothing of it is mounted here."""
        for _, mount in self._there:
            rest = _below(path, mount.place)
            if rest is not None:
                within = _joined(mount.part, rest)
                break
        else:
            return ()
        found = []
        for ours in self._here:
            if ours.device == mount.device:
                rest = _below(within, ours.part)
                if rest is not None:
                    found.append(_joined(ours.place, rest))
        return tuple(found)


def own_namespace() -> str:
    """What tells this process's mounts from others'; "" where it cannot be read."""
    return namespace_of("self")


def namespace_of(pid: int | str) -> str:
    """The same of another process."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115
    except OSError:
        return ""


def mounts_of(pid: int | str) -> tuple[Mount, ...]:
    """The mounts that a process sees; () where they may not be read."""
    try:
        return read_mounts(Path(f"/proc/{pid}/mountinfo").read_bytes())
    except OSError:
        return ()


def _below(path: str, top: str) -> str | None:
    """What follows ``top`` in ``path``; None where it does not lie there."""
    if top == "/":
        return path.lstrip("/")
    if path == top:
        return ""
    return path[len(top) + 1 :] if path.startswith(f"{top}/") else None


def _joined(top: str, rest: str) -> str:
    return f"{top.rstrip('/')}/{rest}" if rest else top
