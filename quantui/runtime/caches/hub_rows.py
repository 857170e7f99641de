"""The items of one repository of a Hub cache: itself, its revisions, what downloads left, blobs that nothing names."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind, Rebuild
from quantui.domain.formatting import format_bytes
from quantui.runtime.caches.hub_holders import Holders
from quantui.runtime.caches.measuring import BLOCK
from quantui.runtime.caches.reflinks import LEAST, shared_extents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantui.runtime.caches.hub_holders import Ledger
    from quantui.runtime.caches.hub_repository import Blob, Repository, Revision

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space", "kernels": "kernel"}
"""What a folder's name begins with, and the type that it means (huggingface_hub's REPO_TYPES_MAPPING)."""

INCOMPLETE = ".incomplete"
_SMALL = 1 << 20
"""Bytes below which a file's reading tells nothing: configurations are read by whoever lists the models."""


@dataclass(slots=True)
class _Held:
    """Bytes that an item holds: by key the holders that are its own, and the bytes that nobody else has."""

    alone: int = 0
    here: dict[str, int] = field(default_factory=dict)
    never: list[Claim] = field(default_factory=list)


class Rows:
    """Makes the items of ``repo``, which lies in the cache ``root``."""

    def __init__(self, repo: Repository, root: str, ledger: Ledger, *, reflinks: bool) -> None:
        self._repo = repo
        self._root = root
        self._ledger = ledger
        self._reflinks = reflinks
        self._seen: dict[str, Holders] = {}
        self._reflinked: dict[str, int] = {}
        kind, _, rest = os.path.basename(repo.path).partition("--")  # noqa: PTH119 - paths are text here
        self._type, self._id = TYPES.get(kind, kind), rest.replace("--", "/")

    def items(self) -> Iterator[CacheItem]:
        """The repository, then its parts."""
        repo = self._repo
        sizes = self._sizes()
        unfinished = [
            blob
            for name, blob in sorted(repo.blobs.items())
            if name.endswith(INCOMPLETE) and not blob.revisions and _is_file(blob)
        ]
        unnamed = [
            blob
            for name, blob in sorted(repo.blobs.items())
            if not name.endswith(INCOMPLETE)
            and not blob.revisions
            and not name.startswith(".")
            and (_is_file(blob) or blob.payload is not None)
        ]
        if repo.elsewhere:
            yield self._repository(sizes, DiskUse(sum(sizes.values()), self._at_the_top()), [], [])
            return
        self._count_holders()
        self._ledger.add(self._seen)
        whole = self._use(sum(sizes.values()), self._whole())
        yield self._ledger.told(self._repository(sizes, whole, unfinished, unnamed))
        for revision in repo.revisions:
            yield self._ledger.told(self._revision(revision))
        for blob in unfinished:
            yield self._ledger.told(self._leftover(blob, "unfinished download"))
        for blob in unnamed:
            name = os.path.basename(blob.path)[:12]  # noqa: PTH119
            yield self._ledger.told(self._leftover(blob, f"blob {name} that no revision refers to"))

    def _sizes(self) -> dict[str, int]:
        """By path, the length of every file that revisions refer to: what ``hf cache ls`` adds up."""
        sizes = {blob.path: blob.size for blob in self._repo.blobs.values() if blob.revisions}
        for revision in self._repo.revisions:
            sizes.update((path, status.st_size) for path, status in revision.plain.items())
            sizes.update((path, status.st_size) for path, status in revision.outside.items())
        return sizes

    def _at_the_top(self) -> int:
        """Bytes on disk of a repository that keeps its files elsewhere: what deleting the links frees."""
        above = self._repo.rest[0][0]
        own = [above] if stat.S_ISLNK(above.st_mode) else self._top_level()
        return sum(status.st_blocks for status in own) * BLOCK

    def _top_level(self) -> list[os.stat_result]:
        path = self._repo.path
        return [
            status
            for status, one in self._repo.rest
            if one == path or os.path.dirname(one) == path  # noqa: PTH120
        ]

    def _count_holders(self) -> None:
        """Count who holds each inode that has more names than one, or more revisions."""
        for blob in self._repo.blobs.values():
            times = max(1, blob.revisions)
            self._count(blob.status, blob.path, times)
            payload = blob.payload
            if payload is not None:
                one = self._seen.get(payload.key)
                if one is None:
                    # Without a list that can be read, huggingface_hub keeps the payload.
                    links = payload.links
                    limit = len(links) if links is not None else 1 << 30
                    limit += payload.names - 1
                    one = self._seen[payload.key] = Holders(limit, payload.allocated)
                if payload.links is not None and blob.path in payload.links:
                    one.names += 1
                    one.holders += times
        for revision in self._repo.revisions:
            for status, path in self._own(revision):
                self._count(status, path, 1)
        for status, path in self._repo.rest:
            self._count(status, path, 1)

    def _count(self, status: os.stat_result, path: str, times: int) -> None:
        if stat.S_ISDIR(status.st_mode) or (status.st_nlink == 1 and times == 1):
            return
        key = _key(status)
        one = self._seen.get(key)
        if one is None:
            one = self._seen[key] = Holders(status.st_nlink, self._exclusive(status, path))
        one.names += 1
        one.holders += times

    def _whole(self) -> _Held:
        """Everything below the repository's folder, and its part of the shared store."""
        held = _Held()
        for status, path in self._repo.rest:
            self._hold(held, status, path, 1)
        for revision in self._repo.revisions:
            for status, path in self._own(revision):
                self._hold(held, status, path, 1)
        for blob in self._repo.blobs.values():
            self._hold_blob(held, blob, max(1, blob.revisions))
        return held

    def _own(self, revision: Revision) -> list[tuple[os.stat_result, str]]:
        """What lies in a revision's folder; of one that is a link, the link."""
        return revision.own[:1] if stat.S_ISLNK(revision.own[0][0].st_mode) else revision.own

    def _hold_blob(self, held: _Held, blob: Blob, times: int) -> None:
        self._hold(held, blob.status, blob.path, times)
        payload = blob.payload
        if payload is not None:
            listed = payload.links is not None and blob.path in payload.links
            here = held.here.get(payload.key, 0)
            held.here[payload.key] = here + (times if listed else 0)

    def _hold(self, held: _Held, status: os.stat_result, path: str, times: int) -> None:
        key = _key(status)
        if key in self._seen and not stat.S_ISDIR(status.st_mode):
            first = key not in held.here
            held.here[key] = held.here.get(key, 0) + times
            if not first:
                return
        else:
            held.alone += self._exclusive(status, path)
        shared = self._reflinked.get(key, 0)
        if shared:
            held.never.append(Claim(f"reflink:{key}", 1, status.st_nlink + 1, shared))

    def _exclusive(self, status: os.stat_result, path: str) -> int:
        """Bytes on disk of a file without those that reflinked copies hold too."""
        allocated = status.st_blocks * BLOCK
        if not self._reflinks or allocated < LEAST or not stat.S_ISREG(status.st_mode):
            return allocated
        key = _key(status)
        if key not in self._reflinked:
            self._reflinked[key] = shared_extents(path, allocated)
        return allocated - self._reflinked[key]

    def _use(self, apparent: int, held: _Held) -> DiskUse:
        alone, claims = held.alone, list(held.never)
        for key, here in held.here.items():
            allocated = self._seen[key].allocated
            if not allocated:
                continue
            needed = self._ledger.needed(key)
            if here >= needed:
                alone += allocated
            else:
                claims.append(Claim(key, here, needed, allocated))
        return DiskUse(apparent, alone, tuple(claims))

    def _repository(
        self, sizes: dict[str, int], use: DiskUse, unfinished: list[Blob], unnamed: list[Blob]
    ) -> CacheItem:
        repo = self._repo
        named = [blob for blob in repo.blobs.values() if blob.revisions]
        plain = [one for revision in repo.revisions for one in revision.plain.values()]
        parts = [] if self._type == "model" else [self._type]
        parts += [_counted(len(repo.revisions), "revision"), _counted(len(sizes), "file")]
        for left, what in (
            (unfinished, "unfinished download"),
            (unnamed, "blob that no revision refers to"),
        ):
            if left:
                size = format_bytes(sum(blob.size for blob in left))
                words = what.replace("blob that", "blobs that") if len(left) > 1 else what
                words += "s" if len(left) > 1 and what.endswith("download") else ""
                parts.append(f"{len(left)} {words} ({size})")
        if repo.elsewhere:
            parts.append(
                "its files lie elsewhere: deleting it removes links and frees nothing there"
            )
        if repo.damage:
            parts.append(f"damaged: {repo.damage}")
        return CacheItem(
            Kind.HUB,
            self._id,
            repo.path,
            self._root,
            use,
            ", ".join(parts),
            used_at=_used_at(named, plain, repo.rest[0][0]),
            made_at=_written_at(named, plain),
            rebuild=Rebuild(f"download {self._id} again", download=use.apparent),
            files=len(sizes),
        )

    def _revision(self, revision: Revision) -> CacheItem:
        repo = self._repo
        held = _Held()
        blobs = [repo.blobs[name] for name in revision.blobs]
        for status, path in self._own(revision):
            self._hold(held, status, path, 1)
        for ref in revision.refs:
            self._hold(held, repo.refs[ref][1], f"{repo.path}/refs/{ref}", 1)
        for blob in blobs:
            self._hold_blob(held, blob, 1)
        sizes = [blob.size for blob in blobs]
        sizes += [status.st_size for status in revision.plain.values()]
        sizes += [status.st_size for status in revision.outside.values()]
        plain = list(revision.plain.values())
        keep = ""
        if repo.damage:
            keep = "its repository is damaged: only the whole of it can be deleted"
        elif revision.outside or len(self._own(revision)) < len(revision.own):
            keep = "a link in it leads out of its repository: only the whole of that can be deleted"
        return CacheItem(
            Kind.REVISION,
            f"{self._id} @ {revision.name[:8]}",
            revision.path,
            self._root,
            self._use(sum(sizes), held),
            ", ".join(revision.refs) or "no branch or tag names it",
            parent=repo.path,
            used_at=_used_at(blobs, plain, revision.own[0][0]),
            made_at=_written_at(blobs, plain),
            rebuild=Rebuild(f"download {self._id} again", download=sum(sizes)),
            keep=keep,
            detached=not revision.refs,
            files=len(sizes),
        )

    def _leftover(self, blob: Blob, what: str) -> CacheItem:
        held = _Held()
        self._hold_blob(held, blob, 1)
        return CacheItem(
            Kind.INCOMPLETE,
            f"{self._id}: {what}",
            blob.path,
            self._root,
            self._use(blob.size, held),
            what,
            parent=self._repo.path,
            used_at=max(blob.used, blob.written),
            made_at=blob.written,
            rebuild=Rebuild(f"download {self._id} again", download=blob.size),
            files=1,
        )


def _key(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _is_file(blob: Blob) -> bool:
    return stat.S_ISREG(blob.status.st_mode)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _used_at(
    blobs: Iterable[Blob], plain: Iterable[os.stat_result], folder: os.stat_result
) -> float:
    """When weights were read, or anything was written, last; of a repository without weights when any file was."""
    files = [(blob.size, blob.used, blob.written) for blob in blobs]
    files += [(one.st_size, one.st_atime, one.st_mtime) for one in plain]
    read = [used for size, used, _ in files if size >= _SMALL] or [used for _, used, _ in files]
    return max([*read, *(written for _, _, written in files)], default=folder.st_mtime)


def _written_at(blobs: Iterable[Blob], plain: Iterable[os.stat_result]) -> float | None:
    times = [blob.written for blob in blobs]
    times += [one.st_mtime for one in plain]
    return max(times, default=None)
