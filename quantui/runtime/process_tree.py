"""Which processes stand below some others, many times a second and for little: what is known is not read again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_REFRESH_S = 0.5
"""A process that lives shorter may go unseen."""
_FORGET_S = 30.0
"""Then everything is read anew: a number may have been given to another process between two looks."""


class ProcessTree:
    """The living processes below given ones.

    Between two looks at /proc only processes that are new are read, which is what keeps this cheap on a machine with
    thousands of them. That a parent never changes while it matters is the keepers' doing: they adopt orphans.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._roots: tuple[int, ...] = ()
        self._found: list[int] = []
        self._looked = self._read_anew = float("-inf")

    def below(self, roots: Iterable[int]) -> list[int]:
        """Every process below ``roots``, as of half a second ago at most; the roots themselves are left out."""
        now, roots = time.monotonic(), tuple(roots)
        if roots == self._roots and now - self._looked < _REFRESH_S:
            return self._found
        if now - self._read_anew >= _FORGET_S:
            self._parents, self._read_anew = {}, now
        self._roots, self._looked = roots, now
        self._found = self._look() if roots else []
        return self._found

    def _look(self) -> list[int]:
        entries = os.listdir("/proc")  # noqa: PTH208 - thousands of them
        there = {int(entry) for entry in entries if entry.isdigit()}
        parents = {pid: parent for pid, parent in self._parents.items() if pid in there}
        for pid in there - parents.keys():
            parent = _parent(pid)
            if parent is not None:
                parents[pid] = parent
        # An orphan was adopted, by a keeper if it is of a run: ask again.
        for pid, parent in list(parents.items()):
            if parent and parent not in parents:
                parents[pid] = _parent(pid) or 0
        self._parents = parents
        children: dict[int, list[int]] = {}
        for pid, parent in parents.items():
            children.setdefault(parent, []).append(pid)
        found: list[int] = []
        queue = [child for root in self._roots for child in children.get(root, ())]
        while queue:
            pid = queue.pop()
            found.append(pid)
            queue += children.get(pid, ())
        return found


def _parent(pid: int) -> int | None:
    """The parent's number; 0 for one that has none here, None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - thousands of them
            # The command name may hold spaces and parentheses: fields start after the last ")".
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
