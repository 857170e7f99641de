"""SHA-256 of large files, kept between runs: a 140 GB checkpoint is hashed once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from quantui.runtime import paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes hashed, bytes in all) while a file is hashed."""

_BLOCK = 4 * 1024 * 1024
_MAX_ENTRIES = 20_000


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """Hex SHA-256 of the content of ``path``; from the cache when the file has not changed since.

    "Not changed" is the same device, inode, size, mtime and ctime. Raises OSError.
    """
    cache = _cache_path()
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        known = _load(cache).get(_key(before))
        if known is not None:
            return known
        started = time.time_ns()
        state = hashlib.sha256()
        done = 0
        while block := file.read(_BLOCK):
            state.update(block)
            done += len(block)
            if progress is not None:
                progress(path.name, done, before.st_size)
        after = os.fstat(file.fileno())
    digest = state.hexdigest()
    if _key(before) == _key(after) and _is_settled(before, started):
        _remember(cache, _key(before), digest)
    return digest


def hashed(paths: Mapping[str, Path]) -> set[str]:
    """The names of those files whose SHA-256 an earlier :func:`sha256_of` kept and that have not changed since."""
    known = _load(_cache_path())
    found = set()
    for name, path in paths.items():
        try:
            if _key(path.stat()) in known:
                found.add(name)
        except OSError:
            continue
    return found


def _cache_path() -> Path:
    return paths.cache_dir() / "file-hashes.json"


def _key(stat: os.stat_result) -> str:
    parts = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return ":".join(map(str, parts))


def _is_settled(stat: os.stat_result, now_ns: int) -> bool:
    # A write within one tick of the file system's clock leaves the times as they are (git calls
    # this "racily clean"); whole seconds point to a file system with a coarse clock.
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    margin = 2_000_000_000 if changed % 1_000_000_000 == 0 else 50_000_000
    return now_ns - changed > margin


def _load(cache: Path) -> dict[str, str]:
    try:
        data = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {str(key): value for key, value in data.items() if isinstance(value, str)}


def _remember(cache: Path, key: str, digest: str) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = {**_load(cache), key: digest}
            kept = dict(list(entries.items())[-_MAX_ENTRIES:])
            part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
            part.write_text(json.dumps(kept), encoding="utf-8")
            part.replace(cache)
    except OSError:
        # The cache only saves time: a full or read-only disk must not stop the work.
        return
