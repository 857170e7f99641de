"""The things that take disk: what each is, what it takes, and what has to be known before it goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Kind(StrEnum):
    """What a thing is; the value is what filters and ``--kind`` take."""

    HUB = "hub"
    """A repository in a cache of huggingface_hub."""
    REVISION = "revision"
    """One revision of such a repository; its :attr:`CacheItem.parent` is the repository."""
    INCOMPLETE = "incomplete"
    """What an interrupted download left in such a repository, or blobs that nothing refers to."""
    MERGED = "merged"
    """A merged checkpoint that quantui made."""
    QUANTIZED = "quantized"
    """A quantized checkpoint that quantui made."""
    UNFINISHED = "unfinished"
    """A checkpoint or an engine that was not made to the end."""
    BROKEN = "broken"
    """A checkpoint that did not pass its proof."""
    ENGINE = "engine"
    """An environment with vLLM or a producer."""
    RUN = "run"
    """The record and the logs of a run."""
    COMPILED = "compiled"
    """What vLLM, torch.compile, Triton or FlashInfer compiled and keep."""
    MEASURED = "measured"
    """Answers of quantui's own that cost only time: hashes, references, capabilities."""
    PACKAGES = "packages"
    """Parts of downloads that other programs keep for the next one: uv's packages, Xet's chunks."""
    FOLDER = "folder"
    """A model or an adapter in a folder that the user added."""
    TRASH = "trash"
    """What was moved away and can be had back until it is emptied."""


@dataclass(frozen=True)
class Claim:
    """Bytes that are freed once all who hold them are deleted: a file with hard links, or a shared blob.

    ``key`` is the same in every item that holds a part; ``here`` of ``needed`` holders belong to this item. Where
    items say different numbers for ``needed``, the largest counts. ``allocated``: bytes on disk.
    """

    key: str
    here: int
    needed: int
    allocated: int


@dataclass(frozen=True)
class DiskUse:
    """Bytes of a thing. Folders and symbolic links count with the blocks they take.

    ``apparent``: the lengths of its files, each inode once, as ``hf cache ls`` and ``du --apparent-size`` count.
    ``alone``: bytes on disk (512 x st_blocks: holes take none) that only this thing holds. ``claims``: what it
    holds together with others.
    """

    apparent: int = 0
    alone: int = 0
    claims: tuple[Claim, ...] = ()

    # Cached: an engine has tens of thousands of claims, and every row that is drawn asks.
    @cached_property
    def on_disk(self) -> int:
        """Bytes on disk of everything in it, each inode once."""
        return self.alone + sum(claim.allocated for claim in self.claims)

    @cached_property
    def frees(self) -> int:
        """Bytes on disk that deleting this thing alone gives back."""
        return self.alone + sum(one.allocated for one in self.claims if one.here >= one.needed)

    @property
    def shared(self) -> int:
        """Bytes on disk that stay when this thing alone is deleted."""
        return self.on_disk - self.frees


@dataclass(frozen=True)
class Rebuild:
    """How a thing comes back once it is gone: ``words`` complete "to have it again: ...".

    ``possible`` False: nothing known can make it again. ``seconds``: what making it took, measured when it was
    made; None: unknown. ``download``: bytes to fetch.
    """

    words: str
    possible: bool = True
    seconds: float | None = None
    download: int | None = None


@dataclass(frozen=True)
class ProcessUse:
    """A running process that uses a thing. ``how``: "has files of it open", "was started with it", ..."""

    pid: int
    name: str
    how: str
    run_id: str = ""


@dataclass(frozen=True)
class CacheItem:
    """One thing on disk. Texts may come from folders and records that anybody wrote: untrusted.

    ``path`` (as ``os.fsdecode`` gives it) is its identity; ``root`` the known folder that it lies in. ``used_at`` and
    ``made_at``: seconds since the epoch, None: unknown. ``made_from``: what it was made from, in words, e.g.
    ``("owner/llama @ 1a2b3c4d", "adapter ./lora")``. ``profiles``: files of profiles that use it. ``users``:
    processes that use it now. ``keep``: why quantui does not delete it; "" where it may. ``trashable``: it can be
    moved away and back. ``detached``: a revision that no branch or tag names. ``stamp``: tells whether it is still what
    was looked at (measuring.Stamp as a tuple); () where nothing was noted.
    """

    kind: Kind
    name: str
    path: str
    root: str
    use: DiskUse
    detail: str = ""
    parent: str | None = None
    used_at: float | None = None
    made_at: float | None = None
    made_from: tuple[str, ...] = ()
    rebuild: Rebuild | None = None
    profiles: tuple[str, ...] = ()
    users: tuple[ProcessUse, ...] = ()
    keep: str = ""
    trashable: bool = False
    detached: bool = False
    files: int = 0
    stamp: tuple[int, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether a running process uses it."""
        return bool(self.users)


@dataclass(frozen=True)
class ScanProblem:
    """A place that could not be read, or is damaged: ``path`` (untrusted), what it is, and what to do."""

    path: str
    what: str
    fix: str = ""


@dataclass(frozen=True)
class CacheDisk:
    """A file system that roots lie on: the device number, roots on it, sizes in bytes."""

    device: int
    roots: tuple[str, ...]
    free_bytes: int
    total_bytes: int
