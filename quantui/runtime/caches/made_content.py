"""What the files of a checkpoint that quantui made, and of a folder that was downloaded, should be."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from quantui.domain.caches.items import Kind
from quantui.domain.caches.verification import Finding, Soundness
from quantui.runtime.artifacts import RECORD, file_sizes
from quantui.runtime.caches.content import Expected
from quantui.runtime.caches.hub_content import Content, by_name
from quantui.runtime.made_hashes import read_hashes, record_in
from quantui.runtime.made_records import PROOF

if TYPE_CHECKING:
    from quantui.domain.caches.items import CacheItem

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOWNLOADED = Path(".cache/huggingface/download")
_METADATA = ".metadata"


def made_content(item: CacheItem) -> Content:
    """The files of a merged or quantized checkpoint, by the record in its folder.

    Files whose hash is not recorded are expected without one: see :func:`quantui.runtime.made_hashes.keep_hashes`.
    """
    folder, content = Path(item.path), Content()
    if item.kind is Kind.FOLDER and (folder / _DOWNLOADED).is_dir():
        return downloaded_content(folder)
    record = record_in(folder)
    if record is None and item.kind is Kind.FOLDER:
        what = "nothing says what its files should be: quantui did not make it, nor did hf download"
        content.findings.append(Finding(what, counts=Soundness.UNKNOWN))
        return content
    if record is None:
        what = f"has no {RECORD} that can be read: nothing says what it should hold"
        content.findings.append(Finding(what, counts=Soundness.INCOMPLETE, fix=_again(item)))
        return content
    hashes = read_hashes(record)
    sizes = _sizes(record, folder)
    for name in sorted({*sizes, *hashes}):
        if not _is_inside(name):
            what = "is named in the record and lies outside the folder: it is not read"
            content.findings.append(Finding(what, name, counts=Soundness.UNKNOWN))
            continue
        digest = hashes.get(name, "")
        known = frozenset({digest}) if _SHA256.fullmatch(digest) else frozenset()
        path = os.path.join(item.path, name)  # noqa: PTH118 - names need not be UTF-8
        content.expected.append(Expected(path, name, "sha256", known, sizes.get(name)))
    return content


def downloaded_content(folder: Path) -> Content:
    """The files of a folder that ``hf download --local-dir`` filled, which keeps the etag of each beside them.

    Three lines a file: commit, etag, seconds since the epoch (huggingface_hub, _local_folder.py); a file that was
    changed after that time is its owner's.
    """
    content = Content()
    root = folder / _DOWNLOADED
    for parent, _, names in os.walk(root):
        for name in sorted(names):
            if not name.endswith(_METADATA):
                continue
            path = Path(parent, name)
            shown = str(path.relative_to(root)).removesuffix(_METADATA)
            try:
                _, etag, at = path.read_text(encoding="utf-8").splitlines()[:3]
                changed = (folder / shown).stat().st_mtime - 1 > float(at)
            except (OSError, ValueError):
                # Also one whose file is gone: whoever removed it from a folder of theirs may have meant it.
                continue
            if changed:
                what = "was changed after it was downloaded"
                content.findings.append(Finding(what, shown, counts=Soundness.UNKNOWN))
            elif known := by_name(str(folder / shown), shown, etag):
                content.expected.append(known)
    return content


def _sizes(record: dict[str, Any], folder: Path) -> dict[str, int]:
    """Relative path -> bytes, as recorded; a merge into a folder of the user's records no sizes: those of today."""
    files = record.get("files")
    if isinstance(files, dict):
        return {
            name: size for name, size in files.items() if isinstance(size, int) and name != RECORD
        }
    try:
        return {name: size for name, size in file_sizes(folder).items() if name != PROOF}
    except OSError:
        return {}


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def _again(item: CacheItem) -> str:
    return f"delete it (quantui cache rm {item.name}): the same run makes it again"
