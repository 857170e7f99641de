"""The memory limit of this process's cgroup: a container must not be told the host's RAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_UNLIMITED = 1 << 60
"""v1 writes "no limit" as the largest page-aligned number, about 2**63."""


@dataclass(frozen=True)
class CgroupMemory:
    """The lowest limit of this process's cgroup and its ancestors, in bytes.

    ``free_bytes`` is what may still be used: the limit less usage, where the file cache that the
    kernel can drop (``inactive_file``) does not count as used, as in ``docker stats`` and kubelet.
    """

    kind: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class _Version:
    kind: str
    limit: str
    usage: str
    inactive: str


_V1 = _Version("cgroup v1", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Version("cgroup v2", "memory.max", "memory.current", "inactive_file")


def cgroup_memory(root: Path) -> CgroupMemory | None:
    """The limit that holds for this process, None when there is none. ``root`` holds proc and sys."""
    return CgroupLimits(root).read()


class CgroupLimits:
    """Where this process's limits stand, looked up once so that reading them again is cheap.

    Every ancestor's limit counts; the lowest total and the lowest rest win. Format: cgroups(7).
    """

    def __init__(self, root: Path) -> None:
        self._places = [
            (version, folder)
            for version, own, top in _folders(root)
            for folder in (own, *(one for one in own.parents if one == top or top in one.parents))
        ]

    def read(self) -> CgroupMemory | None:
        """The limit as it is now; None when there is none."""
        found = []
        for version, folder in self._places:
            limit = _number(folder / version.limit)
            if limit is not None and limit < _UNLIMITED:
                used = _number(folder / version.usage) or 0
                used -= min(used, _inactive(folder, version))
                found.append(CgroupMemory(version.kind, limit, max(0, limit - used)))
        if not found:
            return None
        lowest = min(found, key=lambda one: one.total_bytes)
        free = min(one.free_bytes for one in found)
        return CgroupMemory(lowest.kind, lowest.total_bytes, free)


def _folders(root: Path) -> list[tuple[_Version, Path, Path]]:
    """(version, this process's folder, mount point) of each hierarchy that governs memory."""
    own: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            own["v1"] = path
        elif number == "0" and not controllers:
            own["v2"] = path
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" and "v2" in own:
            version, path = _V2, own["v2"]
        elif kind[0] == "cgroup" and "memory" in kind[2].split(",") and "v1" in own:
            version, path = _V1, own["v1"]
        else:
            continue
        top = root / fields[4].lstrip("/")
        # The mount may show a part of the hierarchy (a container's), named by its own root.
        inside = path.removeprefix(fields[3].rstrip("/")).strip("/")
        folder = top / inside
        if ".." in folder.parts or not folder.is_dir():
            folder = top
        found.append((version, folder, top))
    return found


def _inactive(folder: Path, version: _Version) -> int:
    for line in _text(folder / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == version.inactive and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    """A count of bytes; None for "max" and for a missing file (the root cgroup has none)."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
