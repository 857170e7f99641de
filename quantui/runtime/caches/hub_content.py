"""What the files of a cached repository should be: a blob of the Hub's cache is named by the hash of its content.

The name is the etag that the Hub gave: SHA-256 for files in LFS or Xet, git's SHA-1 for the others
(huggingface_hub, file_download.py). A snapshot's files are links to them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.domain.caches.verification import Finding, Soundness
from quantui.runtime.caches.content import Algorithm, Expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.caches.items import CacheItem

_ALGORITHMS: dict[int, Algorithm] = {64: "sha256", 40: "git"}
_HEX = re.compile(r"[0-9a-f]+")
_TYPES = {"models": "model", "datasets": "dataset", "spaces": "space", "kernels": "kernel"}
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


@dataclass
class Content:
    """What is to be read, and what was found without reading."""

    expected: list[Expected] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def hub_content(item: CacheItem) -> Content:
    """The files that the item's snapshots refer to: those of all revisions of a repository, or of one."""
    content = Content()
    repo = Path(item.path)
    if item.kind is Kind.REVISION:
        repo, snapshots = repo.parent.parent, [Path(item.path)]
    else:
        snapshots = _folders(repo / "snapshots", content)
        if not snapshots and not content.findings:
            content.findings.append(
                Finding("holds no revision", counts=Soundness.INCOMPLETE, fix=_again(item))
            )
    blobs: dict[str, Expected] = {}
    for snapshot in snapshots:
        _add_snapshot(repo, snapshot, blobs, content)
    content.expected += blobs.values()
    return content


def by_name(path: str, shown: str, name: str, size: int | None = None) -> Expected | None:
    """A file that should have the hash ``name``; None where that is not one of the Hub's two kinds."""
    algorithm = _ALGORITHMS.get(len(name))
    if algorithm is None or not _HEX.fullmatch(name):
        return None
    return Expected(path, shown, algorithm, frozenset({name}), size)


def _folders(folder: Path, content: Content) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        content.findings.append(_unread(folder.name, error))
        return []


def _add_snapshot(repo: Path, snapshot: Path, blobs: dict[str, Expected], content: Content) -> None:
    listed = _listing(repo, snapshot.name)
    there: dict[str, int] = {}
    for path in _files(snapshot, content):
        name = os.path.relpath(path, snapshot)
        shown = f"{snapshot.name[:8]}/{name}"
        try:
            is_link = os.path.islink(path)  # noqa: PTH114 - names need not be UTF-8
            blob = os.path.join(os.path.dirname(path), os.readlink(path)) if is_link else path  # noqa: PTH115, PTH118, PTH120
            blob = os.path.normpath(blob)
            real = os.path.realpath(path)
            there[name] = os.stat(real).st_size  # noqa: PTH116
        except OSError as error:
            what = "leads to a blob that is missing" if is_link else f"cannot be read: {error}"
            content.findings.append(Finding(what, shown, counts=Soundness.INCOMPLETE))
            continue
        if not _within(real, repo.parent):
            content.findings.append(
                Finding("leads out of the cache, and is not read", shown, counts=Soundness.UNKNOWN)
            )
        elif os.path.dirname(blob) == str(repo / "blobs"):  # noqa: PTH120
            known = by_name(blob, shown, os.path.basename(blob))  # noqa: PTH119
            if known is None:
                content.findings.append(_nameless(shown))
            else:
                blobs.setdefault(blob, known)
        else:
            # Caches without links, as on some file systems, hold the file itself; its hash is in the listing.
            object_id, size = listed.get(name, ("", None))
            known = by_name(path, shown, object_id, size)
            if known is None:
                content.findings.append(_nameless(shown))
            else:
                blobs.setdefault(path, known)
    content.findings += _missing(repo, snapshot, there, frozenset(listed))


def _files(snapshot: Path, content: Content) -> Iterator[str]:
    def failed(error: OSError) -> None:
        content.findings.append(_unread(snapshot.name[:8], error))

    for parent, folders, names in os.walk(snapshot, onerror=failed):
        folders.sort()
        # A link to a folder is none of huggingface_hub's: it is told, and not followed.
        for name in sorted(names):
            yield os.path.join(parent, name)  # noqa: PTH118


def _missing(
    repo: Path, snapshot: Path, there: dict[str, int], listed: frozenset[str]
) -> Iterator[Finding]:
    """What a model of which weights are there still needs; what else of the repository was not downloaded."""
    kind, _, ref = repo.name.partition("--")
    lacks: tuple[str, ...] = ()
    weights = {os.path.splitext(name)[1] for name in there if _is_weights(name)}  # noqa: PTH122
    if kind == "models" and weights:
        lacks = _lacking(snapshot, ref.replace("--", "/"), there)
        wanted = {os.path.splitext(name)[1] for name in lacks if _is_weights(name)}  # noqa: PTH122
        if wanted and not wanted & weights:
            # Whoever chose the GGUF file of a repository wants none of its other weights.
            lacks = ()
    for name in lacks:
        what = "was not downloaded, and the model needs it"
        yield Finding(what, f"{snapshot.name[:8]}/{name}", counts=Soundness.INCOMPLETE)
    others = listed - set(there) - set(lacks)
    if others:
        some = f"{len(others)} other files" if len(others) > 1 else "another file"
        yield Finding(
            f"{some} of the repository {'are' if len(others) > 1 else 'is'} on the Hub alone",
            snapshot.name[:8],
            counts=Soundness.OK,
        )


def _lacking(snapshot: Path, ref: str, there: dict[str, int]) -> tuple[str, ...]:
    from quantui.domain.errors import QuantuiError
    from quantui.runtime.checkpoint_files import FolderFiles
    from quantui.runtime.hub import lacking

    adapter = "adapter_config.json" in there
    try:
        files = FolderFiles(snapshot, ref=ref, source="hub-cache", revision=snapshot.name)
        return lacking(files, adapter=adapter)
    except QuantuiError:
        # An index that cannot be read: its own hash tells.
        return ()


def _is_weights(name: str) -> bool:
    return "/" not in name and name.endswith(_WEIGHTS)


def _listing(repo: Path, commit: str) -> dict[str, tuple[str, int | None]]:
    """File -> (hash, bytes) as the Hub listed them at a commit, where huggingface_hub keeps that (from 2.0 on)."""
    kind, _, ref = repo.name.partition("--")
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return {}
    try:
        files = get_cached_repo_tree(
            ref.replace("--", "/"),
            repo_type=_TYPES.get(kind, "model"),
            revision=commit,
            cache_dir=repo.parent,
        )
        return {file.path: (file.blob_id, file.size) for file in files}
    except (CachedRepoTreeNotFoundError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _within(path: str, folder: Path) -> bool:
    return path.startswith(os.path.realpath(folder) + os.sep)


def _nameless(shown: str) -> Finding:
    return Finding(
        "has a name that is no hash: nothing says what it should be",
        shown,
        counts=Soundness.UNKNOWN,
    )


def _unread(shown: str, error: OSError) -> Finding:
    counts = Soundness.UNKNOWN if isinstance(error, PermissionError) else Soundness.DAMAGED
    return Finding(f"cannot be listed: {error.strerror}", shown, counts=counts)


def _again(item: CacheItem) -> str:
    return f"delete it: quantui cache rm {item.name}"
