"""The items of one repository of a Hub cache: itself, its revisions, what downloads left, blobs that nothing names."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, DiskUse, Kind, Rebuild
from quantui.domain.caches.words import sized
from quantui.runtime.caches.hub_holders import Held
from quantui.runtime.caches.hub_repository import is_apart
from quantui.runtime.caches.measuring import BLOCK

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from quantui.runtime.caches.hub_holders import Ledger
    from quantui.runtime.caches.hub_repository import Blob, Repository, Revision

INCOMPLETE = ".incomplete"
_SMALL = 1 << 20
"""Bytes below which a file's reading tells nothing: configurations are read by whoever lists the models."""


def repository_items(repo: Repository, root: str, ledger: Ledger) -> Iterator[CacheItem]:
    """The repository, which lies in the cache ``root``, then its parts."""
    left = {
        name: blob
        for name, blob in repo.blobs.items()
        if not blob.revisions and not name.startswith(".") and _takes_room(blob)
    }
    unfinished = [left[name] for name in sorted(left) if name.endswith(INCOMPLETE)]
    unnamed = [left[name] for name in sorted(left) if not name.endswith(INCOMPLETE)]
    named = [blob for blob in repo.blobs.values() if blob.revisions]
    if repo.elsewhere:
        use = DiskUse(alone=repo.rest.blocks * BLOCK)
        yield _repository(repo, root, use, named, unfinished, unnamed)
        return
    _count(repo, ledger)
    use = ledger.use(0, _whole(repo, ledger))
    yield ledger.told(_repository(repo, root, use, named, unfinished, unnamed))
    for revision in repo.revisions:
        yield ledger.told(_revision(repo, root, revision, ledger))
    for blob in unfinished:
        yield ledger.told(_leftover(repo, root, blob, "unfinished download", ledger))
    for blob in unnamed:
        what = f"blob {blob.path.rpartition('/')[2][:12]} that no revision refers to"
        yield ledger.told(_leftover(repo, root, blob, what, ledger))


def _takes_room(blob: Blob) -> bool:
    return blob.payload is not None or stat.S_ISREG(blob.status.st_mode)


def _count(repo: Repository, ledger: Ledger) -> None:
    """Count who holds what, before anybody is asked."""
    for blob in repo.blobs.values():
        if blob.status.st_nlink > 1 or blob.revisions > 1 or blob.payload is not None:
            ledger.count_blob(blob)
    for revision in repo.revisions:
        ledger.count_lot(revision.own)
    for name, (_, status) in repo.refs.items():
        ledger.count(status, f"{repo.path}/refs/{name}", 1)
    ledger.count_lot(repo.rest)


def _whole(repo: Repository, ledger: Ledger) -> Held:
    """Everything below the repository's folder, and its part of the shared store."""
    held = Held()
    ledger.hold_lot(held, repo.rest)
    for revision in repo.revisions:
        ledger.hold_lot(held, revision.own)
    blocks = 0
    for blob in repo.blobs.values():
        if blob.payload is None and not is_apart(blob.status):
            blocks += blob.status.st_blocks
        else:
            ledger.hold_blob(held, blob, max(1, blob.revisions))
    held.alone += blocks * BLOCK
    for name, (_, status) in repo.refs.items():
        ledger.hold(held, status, f"{repo.path}/refs/{name}", 1)
    return held


def _repository(
    repo: Repository,
    root: str,
    use: DiskUse,
    named: list[Blob],
    unfinished: list[Blob],
    unnamed: list[Blob],
) -> CacheItem:
    plain = [status for revision in repo.revisions for status in revision.plain]
    outside = repo.outside()
    apparent = (
        sum(blob.behind.st_size for blob in named)
        + sum(status.st_size for status in plain)
        + sum(status.st_size for status in outside.values())
    )
    files = len(named) + len(plain) + len(outside)
    parts = [] if repo.type == "model" else [repo.type]
    parts += [_counted(len(repo.revisions), "revision"), _counted(files, "file")]
    if unfinished:
        parts.append(f"{_counted(len(unfinished), 'unfinished download')} ({_bytes(unfinished)})")
    if unnamed:
        blobs = _counted(len(unnamed), "blob")
        parts.append(f"{blobs} that no revision refers to ({_bytes(unnamed)})")
    if repo.elsewhere:
        parts.append("its files lie elsewhere: deleting it removes links and frees nothing there")
    if repo.damage:
        parts.append(f"damaged: {repo.damage}")
    used, made = _times([*(blob.behind for blob in named), *plain])
    return CacheItem(
        Kind.HUB,
        repo.id,
        repo.path,
        root,
        DiskUse(apparent, use.alone, use.claims),
        ", ".join(parts),
        used_at=used or repo.folder.st_mtime,
        made_at=made,
        rebuild=Rebuild(f"download {repo.id} again", download=apparent),
        files=files,
        stamp=_stamp(
            repo.folder,
            [blob.status for blob in repo.blobs.values()]
            + [revision.folder for revision in repo.revisions],
        ),
    )


def _revision(repo: Repository, root: str, revision: Revision, ledger: Ledger) -> CacheItem:
    held = Held()
    ledger.hold_lot(held, revision.own)
    for ref in revision.refs:
        ledger.hold(held, repo.refs[ref][1], f"{repo.path}/refs/{ref}", 1)
    blocks = 0
    for blob in revision.blobs.values():
        if blob.revisions == 1 and blob.payload is None and not is_apart(blob.status):
            blocks += blob.status.st_blocks
        else:
            ledger.hold_blob(held, blob, 1)
    held.alone += blocks * BLOCK
    keep = ""
    if repo.damage:
        keep = "its repository is damaged: only the whole of it can be deleted"
    elif revision.leads_out:
        keep = "a link in it leads out of its repository: only the whole of that can be deleted"
    blobs = list(revision.blobs.values())
    if not revision.refs:
        # Whoever reads what it shares with a revision that has a name reads that one.
        blobs = [blob for blob in blobs if blob.revisions == 1]
    used, made = _times([*(blob.behind for blob in blobs), *revision.plain])
    size = revision.size
    return CacheItem(
        Kind.REVISION,
        f"{repo.id} @ {revision.name[:8]}",
        revision.path,
        root,
        ledger.use(size, held),
        ", ".join(revision.refs) or "no branch or tag names it",
        parent=repo.path,
        used_at=used or revision.folder.st_mtime,
        made_at=made or revision.folder.st_mtime,
        rebuild=Rebuild(f"download {repo.id} again", download=size),
        keep=keep,
        detached=not revision.refs,
        files=revision.files,
        stamp=_stamp(
            revision.folder,
            [revision.folder, *(blob.status for blob in revision.blobs.values()), *revision.plain],
        ),
    )


def _leftover(repo: Repository, root: str, blob: Blob, what: str, ledger: Ledger) -> CacheItem:
    held = Held()
    ledger.hold_blob(held, blob, 1)
    return CacheItem(
        Kind.INCOMPLETE,
        f"{repo.id}: {what}",
        blob.path,
        root,
        ledger.use(blob.size, held),
        what,
        parent=repo.path,
        used_at=max(blob.behind.st_atime, blob.behind.st_mtime),
        made_at=blob.behind.st_mtime,
        rebuild=Rebuild(f"download {repo.id} again", download=blob.size),
        files=1,
        stamp=_stamp(blob.status, [blob.status]),
    )


def _stamp(top: os.stat_result, parts: Iterable[os.stat_result]) -> tuple[int, ...]:
    """Tells whether a part of a cache is still what was looked at: its top, its blobs, the folders of its revisions.

    As measuring.Stamp: deleting a hard link elsewhere changes nothing of it, and a new blob or revision does.
    """
    count = mark = 0
    for status in parts:
        count += 1
        length = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        mark += hash((status.st_ino, length, status.st_mtime_ns))
    return top.st_dev, top.st_ino, count, mark & ((1 << 63) - 1)


def _times(files: Iterable[os.stat_result]) -> tuple[float | None, float | None]:
    """When weights were read or anything written last, and when anything was written last, seconds.

    Without weights: when any file was read. None of both without a file.
    """
    read = read_small = written = 0.0
    for status in files:
        written = max(written, status.st_mtime)
        if status.st_size >= _SMALL:
            read = max(read, status.st_atime)
        else:
            read_small = max(read_small, status.st_atime)
    return max(read or read_small, written) or None, written or None


def _bytes(blobs: list[Blob]) -> str:
    return sized(sum(blob.size for blob in blobs))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
