"""What quantui and the Hub keep on disk, measured; nothing is changed here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.formatting import format_bytes
from quantui.runtime import paths
from quantui.runtime.engine_store import disk_size
from quantui.runtime.probe_host import hub_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class CacheSize:
    """One folder: ``bytes_on_disk`` and ``entries`` are None when it is missing or unreadable."""

    name: str
    path: str
    bytes_on_disk: int | None = None
    entries: int | None = None
    problem: str = ""
    fix: str = ""


def cache_sizes() -> tuple[CacheSize, ...]:
    """What :func:`each_cache_size` gives, all at once."""
    return tuple(each_cache_size())


def each_cache_size() -> Iterator[CacheSize]:
    """The Hub cache, then quantui's own folders, each inode counted once, as they are measured.

    Takes about as long as ``du``: a second for an engine's 60,000 files that are not in memory.
    """
    yield _hub(hub_cache())
    yield _artifacts()
    yield _folder("engines", paths.engines_dir())
    yield _folder("runs", paths.runs_dir())
    yield _folder("cache", paths.cache_dir())


def _artifacts() -> CacheSize:
    """The artifact store, and what did not finish or pass its proof: in it, or beside folders of the user's."""
    from quantui.runtime import unfinished
    from quantui.runtime.artifacts import ArtifactStore

    store = ArtifactStore()
    size = _folder("artifacts", store.root)
    if size.bytes_on_disk is None:
        return size
    problems, fixes = [], []
    for left, what, fix in (
        (
            unfinished.unfinished_merges(store, {}),
            ("merge", "merges", "did not finish"),
            "run the same merge again, it goes on from there; or quantui merge BASE ADAPTER --discard, "
            "or delete what is named here",
        ),
        (
            unfinished.unfinished_quantizations(store),
            ("quantization", "quantizations", "did not finish"),
            "run the same quantization again, or delete what is named here",
        ),
        (
            unfinished.broken_results(store),
            ("result", "results", "did not pass the proof"),
            "delete what is named here once you have looked at it",
        ),
    ):
        if left:
            total = sum(one.bytes for one in left)
            count = f"1 {what[0]}" if len(left) == 1 else f"{len(left)} {what[1]}"
            names = ", ".join(shown_path(one.path) for one in left)
            problems.append(f"{count} {what[2]} ({format_bytes(total)}): {names}")
            fixes.append(fix)
    return replace(size, problem="; ".join(problems), fix="; ".join(fixes))


def _folder(name: str, path: Path) -> CacheSize:
    try:
        entries = sum(1 for _ in path.iterdir())
    except FileNotFoundError:
        return CacheSize(name, shown_path(path))
    except OSError as error:
        return _unreadable(name, path, error)
    return CacheSize(name, shown_path(path), disk_size(path).total, entries)


def _hub(path: Path) -> CacheSize:
    """huggingface_hub's own count of its repos, and downloads that did not finish."""
    from huggingface_hub import scan_cache_dir

    if not path.exists():
        return CacheSize("hub cache", shown_path(path))
    try:
        found = scan_cache_dir(path)
        unfinished = [file.stat().st_size for file in path.glob("*/blobs/*.incomplete")]
    except (OSError, ValueError) as error:
        return _unreadable("hub cache", path, error)
    problems, fixes = [], []
    if found.warnings:
        problems.append(f"{len(found.warnings)} entries are damaged: {found.warnings[0]}")
        fixes.append("delete what is named there, it is downloaded again when needed")
    if unfinished:
        size = sum(unfinished)
        problems.append(f"{len(unfinished)} downloads did not finish ({size / 1024**3:.2f} GiB).")
        fixes.append("run the same download again (hf download REPO), it goes on from there")
    return CacheSize(
        "hub cache",
        shown_path(path),
        found.size_on_disk + sum(unfinished),
        len(found.repos),
        " ".join(problems),
        "; ".join(fixes),
    )


def _unreadable(name: str, path: Path, error: Exception) -> CacheSize:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    fix = f"ls -ld {shown_path(path)}: it must be a folder this user may read"
    return CacheSize(name, shown_path(path), problem=f"It cannot be read: {reason}.", fix=fix)


def shown_path(path: Path) -> str:
    """The path as text that JSON and terminals take: names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
