"""What each of the places takes that quantui and the Hub keep things in: the inventory, added up."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import on_disk, outermost
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.formatting import format_bytes
from quantui.runtime import paths
from quantui.runtime.caches.inventory import things
from quantui.runtime.probe_host import hub_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.caches.items import ScanProblem

_KINDS = frozenset(Kind) - {Kind.COMPILED, Kind.PACKAGES, Kind.FOLDER, Kind.TRASH}
_NOT_WHOLE = frozenset({Kind.UNFINISHED, Kind.BROKEN})


@dataclass(frozen=True)
class AreaSize:
    """One place: ``bytes_on_disk`` and ``entries`` (things in it) are None when it is missing or unreadable."""

    name: str
    path: str
    bytes_on_disk: int | None = None
    entries: int | None = None
    problem: str = ""
    fix: str = ""


@dataclass
class _Area:
    name: str
    path: Path
    items: dict[str, CacheItem] = field(default_factory=dict)
    problems: list[ScanProblem] = field(default_factory=list)

    def holds(self, path: str) -> bool:
        return any(
            f"{path}/".startswith(f"{root}/") for root in (self.path, os.path.realpath(self.path))
        )


def area_sizes() -> tuple[AreaSize, ...]:
    """The Hub cache that is used now, then quantui's own folders; what lies beside the user's is with the artifacts.

    Takes about as long as ``du``: a second for an engine's 60,000 files that are not in memory.
    """
    areas = (
        _Area("hub cache", hub_cache()),
        _Area("artifacts", paths.artifacts_dir()),
        _Area("engines", paths.engines_dir()),
        _Area("runs", paths.runs_dir()),
        _Area("cache", paths.cache_dir()),
    )
    own = {str(paths.home()), str(paths.home() / "demo")}
    for found in things(_KINDS):
        area = next((one for one in areas if one.holds(found.path)), None)
        if isinstance(found, CacheItem):
            if area is None and found.kind in _NOT_WHOLE and found.root not in own:
                area = areas[1]
            if area is not None:
                area.items[found.path] = found
        elif area is not None:
            area.problems.append(found)
    return tuple(_size(area) for area in areas)


def _size(area: _Area) -> AreaSize:
    shown = shown_path(area.path)
    unread = next((one for one in area.problems if one.path == str(area.path)), None)
    if unread is None and not area.path.exists():
        return AreaSize(area.name, shown)
    if unread is not None or not area.path.is_dir():
        what = unread.what if unread is not None else "It cannot be read: it is no folder."
        fix = f"ls -ld {shown}: it must be a folder this user may read"
        return AreaSize(area.name, shown, problem=what, fix=fix)
    whole = outermost(area.items.values())
    problem, fix = _hub(area) if area.name == "hub cache" else _left(area.name, whole)
    return AreaSize(area.name, shown, on_disk(whole), len(whole), problem, fix)


def _hub(area: _Area) -> tuple[str, str]:
    """Damaged repositories, and downloads that did not finish."""
    problems, fixes = [], []
    if area.problems:
        first = area.problems[0]
        problems.append(
            f"{_counted(len(area.problems), 'entry is', 'entries are')} damaged: "
            f"{shown_path(Path(first.path))}: {first.what}"
        )
        fixes.append("delete what is named there, it is downloaded again when needed")
    unfinished = [one for path, one in area.items.items() if path.endswith(".incomplete")]
    if unfinished:
        size = format_bytes(sum(one.use.apparent for one in unfinished))
        problems.append(
            f"{_counted(len(unfinished), 'download', 'downloads')} did not finish ({size})."
        )
        fixes.append("run the same download again (hf download REPO), it goes on from there")
    return " ".join(problems), "; ".join(fixes)


def _left(area: str, items: Sequence[CacheItem]) -> tuple[str, str]:
    """What was not made to the end, or did not pass its proof. Engines say so themselves."""
    if area == "engines":
        return "", ""
    problems, fixes = [], []
    for kind, words, fix in (
        (
            Kind.UNFINISHED,
            ("thing was", "things were", "not made to the end"),
            "run the same again, it goes on from there where it can; or quantui cache rm what is named here",
        ),
        (
            Kind.BROKEN,
            ("result", "results", "did not pass the proof"),
            "quantui cache rm what is named here, once you have looked at it",
        ),
    ):
        left = [one for one in items if one.kind is kind and not one.busy]
        if left:
            size = format_bytes(on_disk(left))
            names = ", ".join(shown_path(Path(one.path)) for one in left)
            problems.append(
                f"{_counted(len(left), words[0], words[1])} {words[2]} ({size}): {names}"
            )
            fixes.append(fix)
    return "; ".join(problems), "; ".join(fixes)


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def shown_path(path: Path) -> str:
    """The path as text that JSON and terminals take: names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
