"""What is on this machine: models and adapters in the Hub cache, in folders, and among what quantui made.

Only names, sizes and small JSON files are read, and each thing is given as soon as it is found. What cannot be
read is given too, with what is wrong with it. Names and configs are the word of strangers: faces sanitize them.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.checkpoint_format import classify_quantization
from quantui.domain.checkpoint_facts import stored_dtype
from quantui.domain.errors import QuantuiError
from quantui.domain.found import Found
from quantui.domain.weight_choice import (
    INDEX,
    PICKLE_INDEX,
    choose_adapter_weights,
    choose_model_weights,
)
from quantui.runtime.browsed_folders import added_folders
from quantui.runtime.checkpoint_files import FolderFiles, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.domain.found import Kind, Place
    from quantui.runtime.checkpoint_files import CheckpointFiles

_DEPTH = 2
"""Levels below a root that are looked at: ``models/owner/name``."""
_MOST_FOLDERS = 4000
"""Folders looked at below one root: the current folder may be the root of a disk."""
_MOST_NAMES = 4000
"""Names read of one folder: one with more is a data set."""
_PASSED_OVER = frozenset({"proc", "sys", "dev", "__pycache__", "node_modules", "site-packages"})


def browse(stopped: Callable[[], bool], *, current: Path | None = None) -> Iterator[Found]:
    """Everything on this machine, as it is found: quantui's artifacts, the folders, the Hub cache, the demo's.

    ``current``: the folder that the person is in. Ends early once ``stopped()``; never raises for what it reads.
    """
    for stream in (
        browse_made(),
        browse_folders([*([current] if current else []), *added_folders()], stopped),
        browse_hub_cache(stopped),
        browse_demo(),
    ):
        for found in stream:
            if stopped():
                return
            yield found


def browse_made() -> Iterator[Found]:
    """What quantui merged and quantized, newest first."""
    from quantui.runtime.artifacts import ArtifactStore, read_artifact

    artifacts = []
    with contextlib.suppress(OSError):
        for folder in ArtifactStore().root.iterdir():
            artifact = read_artifact(folder) if folder.is_dir() else None
            if artifact is not None:
                artifacts.append(artifact)
    for artifact in sorted(artifacts, key=lambda each: _created(each.record), reverse=True):
        found = look_into(artifact.path)
        if found is not None:
            yield replace(found, place="made")


def browse_demo() -> Iterator[Found]:
    """The demo's model and adapter where they are made."""
    from quantui.runtime.demo import find_demo

    demo = find_demo()
    if demo is not None:
        for folder in (demo.base, demo.adapter):
            found = look_into(folder)
            if found is not None:
                yield replace(found, place="demo")


def browse_folders(roots: list[Path], stopped: Callable[[], bool]) -> Iterator[Found]:
    """The checkpoints in ``roots`` and two levels below, every folder once.

    A link to a folder is looked at and not descended into: no loop, and nothing far away is walked through.
    """
    seen: set[Path] = set()
    for root in roots:
        left = _MOST_FOLDERS
        level = [root]
        for depth in range(_DEPTH + 1):
            below: list[Path] = []
            for folder in level:
                if stopped() or left <= 0:
                    return
                real = _real(folder)
                if real is None or real in seen:
                    continue
                seen.add(real)
                left -= 1
                found = look_into(folder)
                if found is not None:
                    yield found
                if depth < _DEPTH and (folder == root or not folder.is_symlink()):
                    below += _subfolders(folder)
            level = below


def browse_hub_cache(stopped: Callable[[], bool] = lambda: False) -> Iterator[Found]:
    """The repositories of models in the Hub cache that have a snapshot, by huggingface_hub's layout.

    Those come first whose folder of snapshots changed last: what was downloaded lately.
    """
    repositories = []
    with contextlib.suppress(OSError), os.scandir(hub_cache()) as entries:
        for entry in entries:
            kind, *parts = entry.name.split("--")
            if kind == "models" and 1 <= len(parts) <= 2 and all(parts):
                repositories.append((_changed(Path(entry.path) / "snapshots"), entry.path, parts))
    for _, path, parts in sorted(repositories, reverse=True):
        if stopped():
            return
        found = _cached(Path(path), "/".join(parts))
        if found is not None:
            yield found


def hub_cache() -> Path:
    """The folder of the Hub cache, as huggingface_hub has it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look_into(folder: Path) -> Found | None:
    """The checkpoint or adapter in ``folder``; None where there is none."""
    names = _names(folder)
    if names is None or not _is_checkpoint(names):
        return None
    return _found(folder, str(folder), None, "folder")


def _cached(repository: Path, ref: str) -> Found | None:
    """The snapshot that the Hub id stands for: the branch main's, else the newest, which has to be named."""
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = ""
    snapshot, revision = repository / "snapshots" / commit, None
    if not commit or "/" in commit or not snapshot.is_dir():
        newest = _newest(repository / "snapshots")
        if newest is None:
            return None
        snapshot, revision = newest, newest.name
    if not _has_weights(snapshot) and not _begun(repository):
        # What was only looked at leaves its config here: that is not a model on this machine.
        return None
    return _found(snapshot, ref, revision, "hub-cache")


def _has_weights(snapshot: Path) -> bool:
    names = _names(snapshot) or set()
    adapter = choose_adapter_weights(names).kind != "none"
    return adapter or choose_model_weights(names - {INDEX, PICKLE_INDEX}).kind != "none"


def _begun(repository: Path) -> bool:
    """Whether a download was begun and not finished."""
    try:
        return any(entry.name.endswith(".incomplete") for entry in os.scandir(repository / "blobs"))
    except OSError:
        return False


def _found(folder: Path, ref: str, revision: str | None, place: Place) -> Found:
    try:
        files = FolderFiles(
            folder, ref=ref, source="hub-cache" if place == "hub-cache" else "folder"
        )
    except (QuantuiError, OSError) as error:
        return Found("model", place, ref, str(folder), revision, problem=_told(error))
    kind: Kind = "adapter" if _is_adapter(files) else "model"
    bare = Found(kind, place, ref, str(folder), revision, last_used=_last_used(folder, files))
    try:
        return _described(bare, files)
    except (QuantuiError, OSError) as error:
        return replace(bare, problem=_told(error), size_bytes=sum(files.sizes.values()))


def _described(bare: Found, files: FolderFiles) -> Found:
    from quantui.runtime.hub import lacking

    adapter = bare.kind == "adapter"
    name = "adapter_config.json" if adapter else "config.json"
    lacks = lacking(files, adapter=adapter, listed=False)
    found = replace(bare, size_bytes=sum(files.sizes.values()), complete=not lacks)
    if lacks and bare.place != "hub-cache":
        more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
        found = replace(found, problem=f"lacks {lacks[0]}{more}")
    if name not in files.sizes:
        if found.problem or not found.complete:
            return found
        gguf = choose_model_weights(files.sizes).kind == "gguf"
        return replace(found, problem="GGUF files only" if gguf else f"has no {name}")
    config = read_json(files, name)
    if adapter:
        base, rank = config.get("base_model_name_or_path"), config.get("r")
        return replace(
            found,
            base=base if isinstance(base, str) and base else None,
            rank=rank if isinstance(rank, int) and not isinstance(rank, bool) else None,
            stored=str(config.get("peft_type") or "").upper(),
        )
    stored, kind = classify_quantization(config), config.get("model_type")
    return replace(
        found,
        stored="" if stored is None else stored.text or stored.quant_method or "quantized",
        dtype=stored_dtype(config),
        model_type=kind if isinstance(kind, str) else None,
    )


def _is_adapter(files: CheckpointFiles) -> bool:
    """As :func:`.read_model` tells them apart: a whole model may have an adapter's config beside it."""
    if "adapter_config.json" not in files.sizes:
        return False
    return "config.json" not in files.sizes or choose_model_weights(files.sizes).kind == "adapter"


def _is_checkpoint(names: set[str]) -> bool:
    """Whether a folder's names are those of a model or an adapter: a lone config.json may be anybody's."""
    if "adapter_config.json" in names:
        return True
    weights = choose_model_weights(names).kind
    if "config.json" in names:
        return weights in {"safetensors", "pickle"}
    return weights == "gguf"


def _names(folder: Path) -> set[str] | None:
    names: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.add(entry.name)
                if len(names) > _MOST_NAMES:
                    break
    except OSError:
        return None
    return names


def _subfolders(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number > _MOST_NAMES:
                    break
                name = entry.name
                if name.startswith((".", "models--")) or name in _PASSED_OVER:
                    continue
                with contextlib.suppress(OSError):
                    if entry.is_dir():
                        found.append(Path(entry.path))
    except OSError:
        return []
    return sorted(found)


def _real(folder: Path) -> Path | None:
    try:
        return folder.resolve()
    except (OSError, RuntimeError):
        return None


def _newest(snapshots: Path) -> Path | None:
    try:
        folders = [path for path in snapshots.iterdir() if path.is_dir()]
        return max(folders, key=lambda path: path.stat().st_mtime, default=None)
    except OSError:
        return None


def _last_used(folder: Path, files: FolderFiles) -> float | None:
    """When one of its large files was last read, as far as the file system keeps that; else changed."""
    times = []
    for name, _ in sorted(files.sizes.items(), key=lambda item: -item[1])[:2]:
        with contextlib.suppress(OSError):
            found = (folder / name).stat()
            times.append(max(found.st_atime, found.st_mtime))
    return max(times, default=None)


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _created(record: dict[str, Any]) -> float:
    created = record.get("created")
    return float(created) if isinstance(created, int | float) else 0.0


def _told(error: Exception) -> str:
    if isinstance(error, QuantuiError):
        return f"{error.what} {error.why}".strip()
    return str(error)
