"""SHA-256 of every file of a checkpoint that quantui made, kept in its record so that it can be verified later.

Hashing reads everything once more, at 0.2 to 2 GB/s a core, where a merge writes 1 GB/s: done before the result is
given it would double a merge. So a thread of the lowest priority does it while the run goes on to quantize, load or
serve. What is left when the run has nothing else to do gets a small share of the time that making took; verifying
the checkpoint records the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from quantui.runtime.artifacts import RECORD, file_sizes
from quantui.runtime.caches.content import Stopped, digests_of
from quantui.runtime.made_records import PROOF

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

HASHES = "sha256"
"""In a record: relative path -> hex."""

_LARGEST_RECORD = 64 * 1024**2
_SHARE = 0.03
"""Of the time that making took: what hashing may take besides."""
_LEAST_S = 0.25


def record_in(folder: Path) -> dict[str, Any] | None:
    """What ``quantui.json`` in ``folder`` holds, else ``merge_proof.json``; None when there is neither to be read."""
    for name in (RECORD, PROOF):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            path = folder / name
            if path.stat().st_size <= _LARGEST_RECORD:
                record = json.loads(path.read_bytes())
                if isinstance(record, dict):
                    return record
    return None


def read_hashes(record: Mapping[str, Any]) -> dict[str, str]:
    """Relative path -> hex of a record, as far as they are texts."""
    hashes = record.get(HASHES)
    if not isinstance(hashes, dict):
        return {}
    return {name: digest for name, digest in hashes.items() if isinstance(digest, str)}


def keep_hashes(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Add ``hashes`` to the record in ``folder``; False where that cannot be written, or the folder has none.

    What is moved away meanwhile gets them where it is then: a new folder in its place keeps its own record.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for name in (RECORD, PROOF):
            with contextlib.suppress(FileNotFoundError):
                _add(held, name, hashes)
                return True
    except (OSError, ValueError, TypeError, RecursionError):
        return False
    finally:
        os.close(held)
    return False


def _add(held: int, name: str, hashes: Mapping[str, str]) -> None:
    """Replace the record ``name`` in the open folder by one that has ``hashes`` too."""

    def here(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666, dir_fd=held)

    with open(name, "rb", opener=here) as file:
        record = json.loads(file.read(_LARGEST_RECORD))
    if not isinstance(record, dict):
        raise TypeError("the record is not an object")
    record[HASHES] = dict(sorted({**read_hashes(record), **hashes}.items()))
    part = f"{name}.{os.getpid()}.partial"
    try:
        with open(part, "w", encoding="utf-8", opener=here) as out:
            json.dump(record, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        os.rename(part, name, src_dir_fd=held, dst_dir_fd=held)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=held)
        raise


class Hashing:
    """Hashes what a run makes while the run goes on."""

    def __init__(self) -> None:
        self._works: list[tuple[threading.Thread, threading.Event]] = []
        self._allowed_s = 0.0

    def begin(self, folder: Path, making_s: float) -> None:
        """Hash those files in ``folder`` that have no hash yet; making it took ``making_s`` seconds."""
        stop = threading.Event()
        thread = threading.Thread(
            target=_hash_folder, args=(folder, stop), name="hashes", daemon=True
        )
        self._works.append((thread, stop))
        self._allowed_s += max(_LEAST_S, _SHARE * making_s)
        thread.start()

    @property
    def left_s(self) -> float:
        """Seconds that :meth:`finish` may take; 0 when everything is hashed."""
        under_way = any(thread.is_alive() for thread, _ in self._works)
        return self._allowed_s if under_way else 0.0

    def finish(self, cancelled: Callable[[], bool]) -> None:
        """Wait a small share of the time that making took, then stop; what is hashed by then is kept."""
        until = time.monotonic() + self._allowed_s
        for thread, _ in self._works:
            while thread.is_alive() and time.monotonic() < until and not cancelled():
                thread.join(0.05)
        self.stop()

    def stop(self) -> None:
        """Stop now; what is hashed is kept."""
        for _, stop in self._works:
            stop.set()
        for thread, _ in self._works:
            thread.join()
        self._works.clear()


def _hash_folder(folder: Path, stop: threading.Event) -> None:
    _step_back()

    def advance(_: int) -> None:
        if stop.is_set():
            raise Stopped

    known = read_hashes(record_in(folder) or {})
    found: dict[str, str] = {}
    # A folder that is deleted or a disk that fails meanwhile is not this thread's to tell.
    with contextlib.suppress(OSError, Stopped):
        sizes = file_sizes(folder)
        own = RECORD if RECORD in sizes else PROOF
        for name in sorted(sizes, key=lambda name: sizes[name]):
            if name not in known and name != own:
                (found[name],) = digests_of(str(folder / name), "sha256", advance)
    if found:
        keep_hashes(folder, found)


def _step_back() -> None:
    """Give this thread what nothing else wants of cores and disk (setpriority(2), ioprio_set(2))."""
    import psutil

    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    with contextlib.suppress(psutil.Error, OSError, AttributeError, ValueError):
        psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)
