"""Download files of one commit of a Hub repository into the Hub cache.

Run by quantui's own interpreter, which has huggingface_hub. The job:

    {"repo_id": "owner/name", "revision": "<commit>", "allow_patterns": [...],
     "ignore_patterns": [...], "cache_dir": null, "expected_bytes": 123}

``expected_bytes`` is the plan's figure, for those who show the job; what is needed now is counted
anew, because part of it may have come since. Files in the cache are not fetched again, so a run
after an interruption goes on with the file that was cut; huggingface_hub keeps no part of a file.
SIGTERM and SIGINT stop it at once and leave no part behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import quantui_wire as wire

from quantui.domain.hub_failures import explain_hub_failure

PARALLEL_FILES = 4
REPORT_S = 0.25
DISK_MARGIN_BYTES = 64 * 1024 * 1024


class Transfer:
    """What is known about the files on their way, shared by the download threads."""

    def __init__(self, sizes: dict[str, int], cached: set[str]) -> None:
        self.sizes = sizes
        self.total = sum(sizes.values())
        self._lock = threading.Lock()
        self._done = set(cached)
        self._running: list[str] = []
        self._most = 0

    def begin(self, name: str) -> None:
        """``name`` is being downloaded."""
        with self._lock:
            self._running.append(name)

    def end(self, name: str) -> None:
        """``name`` is in the cache."""
        with self._lock:
            self._running.remove(name)
            self._done.add(name)

    def report(self) -> None:
        """One progress event. Never less than before: a retry starts a file again."""
        with self._lock:
            finished = sum(self.sizes[name] for name in self._done)
            limit = finished + sum(self.sizes[name] for name in self._running)
            message = ", ".join(self._running[:1])
        partial = sum(size for _, size in open_parts())
        self._most = min(self.total, max(self._most, min(limit, finished + partial)))
        wire.progress(self._most, self.total, unit="bytes", message=message)


def open_parts() -> list[tuple[str, int]]:
    """Path and size of the unfinished files that this process holds open."""
    found: dict[str, int] = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            path = str(entry.readlink())
            if path.endswith(".incomplete"):
                found[path] = entry.stat().st_size
        except OSError:
            continue
    return list(found.items())


def stop(signum: int, _frame: object) -> None:
    """End now: the download threads cannot be joined while they wait for the network."""
    # They run on while this does: none may begin another part after the last look.
    sys.addaudithook(refuse_new_parts)
    for path, _ in open_parts():
        try:
            Path(path).unlink()
        except OSError:
            continue
    os._exit(128 + signum)


def refuse_new_parts(event: str, details: tuple[Any, ...]) -> None:
    """An audit hook under which no part of a file can be opened."""
    if event == "open" and str(details[0]).endswith(".incomplete"):
        raise InterruptedError("stopped")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Download; returns the snapshot's folder and the bytes fetched."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    from huggingface_hub import constants, get_token, snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    repo_id, revision = str(job["repo_id"]), str(job["revision"])
    cache_dir = str(job.get("cache_dir") or constants.HF_HUB_CACHE)
    patterns: dict[str, Any] = {
        "allow_patterns": job.get("allow_patterns"),
        "ignore_patterns": job.get("ignore_patterns"),
    }
    try:
        wire.phase("listing")
        sizes = list_files(repo_id, revision, patterns)
        cached = {name for name in sizes if is_cached(repo_id, name, revision, cache_dir)}
        check_disk(sum(sizes.values()) - sum(sizes[name] for name in cached), cache_dir, repo_id)
        mention_leftovers(cache_dir, repo_id)
        wire.phase("downloading")
        transfer = Transfer(sizes, cached)
        download(repo_id, revision, cache_dir, transfer, sorted(set(sizes) - cached))
        # With every file in the cache this only notes the repository's listing beside it.
        path = snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, **patterns)
    except wire.WorkerError:
        raise
    except Exception as error:  # noqa: BLE001 - the HTTP library's classes differ by version
        failure = explain_hub_failure(
            error,
            ref=repo_id,
            revision=revision,
            endpoint=constants.ENDPOINT,
            has_token=bool(get_token()),
        )
        sys.stderr.write(f"{type(error).__name__} while downloading {repo_id}\n")
        raise wire.WorkerError(
            failure.code,
            failure.what,
            failure.why,
            failure.fix,
            exit_code=int(failure.exit_code),
        ) from None
    fetched = sum(sizes[name] for name in sizes if name not in cached)
    return {"path": str(path), "bytes": transfer.total, "fetched_bytes": fetched}


def list_files(repo_id: str, revision: str, patterns: dict[str, Any]) -> dict[str, int]:
    """File name -> bytes of what the patterns choose."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    info = HfApi(library_name="quantui").model_info(
        repo_id, revision=revision, files_metadata=True, timeout=60
    )
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    chosen = {name: sizes[name] for name in filter_repo_objects(sorted(sizes), **patterns)}
    if not chosen:
        raise wire.WorkerError(
            "model.file-not-found",
            f"{repo_id} has none of the files that are wanted.",
            "The repository has changed, or the name patterns match nothing.",
            "Resolve the model again.",
            exit_code=5,
        )
    return chosen


def is_cached(repo_id: str, name: str, revision: str, cache_dir: str) -> bool:
    """Whether the file is whole in the cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(
        try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=revision), str
    )


def check_disk(needed: int, cache_dir: str, repo_id: str) -> None:
    """Refuse before the first byte when the disk cannot hold what is to come."""
    folder = Path(cache_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed + DISK_MARGIN_BYTES > free:
        raise wire.WorkerError(
            "disk.too-small",
            f"{repo_id} does not fit on the disk of the Hub cache.",
            f"{needed / 2**30:.2f} GiB are to be downloaded; {free / 2**30:.2f} GiB are free at "
            f"{folder}.",
            "Free space, or set HF_HOME to a folder on a larger disk.",
            exit_code=3,
        )


def mention_leftovers(cache_dir: str, repo_id: str) -> None:
    """Tell of parts that a killed download left; they are the Hub cache's, and are not touched."""
    blobs = Path(cache_dir).expanduser() / f"models--{repo_id.replace('/', '--')}" / "blobs"
    size = 0
    for part in blobs.glob("*.incomplete") if blobs.is_dir() else ():
        try:
            size += part.stat().st_size
        except OSError:
            continue
    if size:
        wire.notice(
            f"{size / 2**30:.2f} GiB of unfinished files of earlier downloads are in {blobs}.",
            level="warning",
        )


def download(
    repo_id: str, revision: str, cache_dir: str, transfer: Transfer, names: list[str]
) -> None:
    """Fetch the files, some at a time, and report about four times a second."""
    from huggingface_hub import hf_hub_download

    def fetch(name: str) -> None:
        transfer.begin(name)
        hf_hub_download(repo_id, name, revision=revision, cache_dir=cache_dir)
        transfer.end(name)

    pool = ThreadPoolExecutor(PARALLEL_FILES)
    pending: set[Future[None]] = {pool.submit(fetch, name) for name in names}
    try:
        while pending:
            started = time.monotonic()
            done, pending = wait(pending, timeout=REPORT_S, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            transfer.report()
            time.sleep(max(0.0, REPORT_S - (time.monotonic() - started)) if pending else 0)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    transfer.report()


if __name__ == "__main__":
    wire.run(main)
