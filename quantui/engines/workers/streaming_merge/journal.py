"""Which files of an unfinished merge are whole: what a merge that was killed goes on from.

A line of JSON for each finished file, after it has been flushed and renamed; the first line holds the hash of
everything that decides the result's bytes. A line that was cut off counts as not written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint
    from streaming_merge.operations import Plan

NAME = "merge_journal.jsonl"
PRODUCER = "streaming_merge/1"
"""Changes when the same plan would give other bytes."""


def plan_hash(
    plan: Plan, base: Checkpoint, adapters: Sequence[AdapterFile], versions: object
) -> str:
    """Hex BLAKE2b of the plan and of what it reads: the base's files by size and time, the adapters whole.

    A base of a hundred gigabytes is not read twice to be sure of it; its modification times tell.
    """
    digest = hashlib.blake2b(digest_size=32)
    stats = [shard.path.stat() for shard in base.shards]
    inputs = {
        "producer": PRODUCER,
        "versions": versions,
        "plan": plan.as_dict(),
        "base": [
            (str(s.path), t.st_size, t.st_mtime_ns) for s, t in zip(base.shards, stats, strict=True)
        ],
        "weights": [adapter.weight for adapter in adapters],
    }
    digest.update(json.dumps(inputs, sort_keys=True).encode())
    for adapter in adapters:
        with adapter.shard.path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


class Journal:
    """The journal of one merge, in the folder that is being written."""

    def __init__(self, folder: Path, plan: str) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        self.finished: dict[str, dict[str, Any]] = {}
        """File -> its line. Read from an earlier merge of the same plan."""
        if belongs_to(folder, plan):
            self.finished = finished_files(folder)
        self._fd = os.open(
            self._path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666
        )
        self._append({"plan": plan})
        for line in self.finished.values():
            self._append(line)
        self._path.with_suffix(".new").rename(self._path)
        clear_unfinished(folder)

    def add(self, file: str, size: int, facts: dict[str, Any]) -> None:
        """Note that ``file`` is whole and on disk."""
        self.finished[file] = line = {"file": file, "size": size, "facts": facts}
        self._append(line)

    def _append(self, line: dict[str, Any]) -> None:
        view = memoryview((json.dumps(line) + "\n").encode())
        with self._lock:
            # On a disk that becomes full a write may be short without an error.
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)

    def close(self) -> None:
        """Close without removing."""
        os.close(self._fd)

    def remove(self) -> None:
        """The merge is whole: nothing is to be gone on from."""
        self._path.unlink()


def belongs_to(folder: Path, plan: str) -> bool:
    """Whether ``folder`` holds an unfinished merge of ``plan``."""
    lines = _lines(folder / NAME)
    return bool(lines) and lines[0].get("plan") == plan


def finished_files(folder: Path) -> dict[str, dict[str, Any]]:
    """File -> its line, for the files of ``folder`` that its journal knows and that have their size."""
    found = {}
    for line in _lines(folder / NAME)[1:]:
        file = folder / str(line.get("file"))
        if file.is_file() and file.stat().st_size == line.get("size"):
            found[file.name] = line
    return found


def clear_unfinished(folder: Path) -> None:
    """Remove everything but the finished files: what the merge makes again may differ by then.

    A tokenizer or template that was copied for another choice would otherwise stay in the result.
    """
    finished = finished_files(folder)
    for entry in list(folder.iterdir()):
        if entry.name == NAME or entry.name in finished:
            continue
        is_folder = entry.is_dir() and not entry.is_symlink()
        shutil.rmtree(entry) if is_folder else entry.unlink()


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not isinstance(entry, dict):
            break
        found.append(entry)
    return found
