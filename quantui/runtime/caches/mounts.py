"""Where file systems are mounted, and of what kind they are: proc(5), ``/proc/self/mountinfo``."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FRESH = 1.0
"""Seconds for which the table is not read again: an inventory measures thousands of folders."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounts:
    """Mount points (absolute, as ``os.fsdecode`` gives them) and the kind of file system at each: "ext4", "btrfs"."""

    kinds: Mapping[str, str] = field(default_factory=dict)

    def kind_at(self, path: str) -> str:
        """The kind of the file system that ``path``, absolute and without links, lies on; "" when unknown."""
        while path not in self.kinds:
            above = os.path.dirname(path)  # noqa: PTH120 - paths are text here
            if above == path:
                return ""
            path = above
        return self.kinds[path]


def read_mounts(table: bytes) -> Mounts:
    """What ``mountinfo`` says; lines of another form are passed over."""
    kinds: dict[str, str] = {}
    for line in table.splitlines():
        left, _, right = line.partition(b" - ")
        fields, after = left.split(b" "), right.split(b" ")
        if len(fields) > 4 and after[0]:
            place = _ESCAPED.sub(lambda code: bytes([int(code[1], 8) & 0xFF]), fields[4])
            kinds[os.fsdecode(place)] = os.fsdecode(after[0])
    return Mounts(kinds)


def mounts(*, fresh: bool = False) -> Mounts:
    """The mounts that this process sees, at most a second old or ``fresh``; none where there is no ``/proc``."""
    now = time.monotonic()
    known = _known.get("")
    if fresh or known is None or now - known[0] > _FRESH:
        try:
            table = Path("/proc/self/mountinfo").read_bytes()
        except OSError:
            table = b""
        known = _known[""] = (now, read_mounts(table))
    return known[1]


_known: dict[str, tuple[float, Mounts]] = {}
