"""Who holds bytes of a Hub cache together: revisions that share a blob, names of one inode, links to one payload.

A holder is a name of the bytes in one revision: a blob that two revisions link to has two, a blob that none links to
has one. Bytes are freed when all their holders are gone, so all that hold them have to say the same number.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Claim, DiskUse
from quantui.runtime.caches.measuring import BLOCK
from quantui.runtime.caches.reflinks import LEAST, shared_extents

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from quantui.domain.caches.items import CacheItem
    from quantui.runtime.caches.hub_repository import Blob, Lot

_FOR_EVER = 1 << 30
"""Names of a payload whose list is missing: huggingface_hub keeps it whatever is deleted."""


@dataclass(slots=True)
class _Holders:
    """Of one inode: names and holders that were seen, ``limit`` names that there are, bytes on disk."""

    limit: int
    allocated: int
    names: int = 0
    holders: int = 0

    @property
    def needed(self) -> int:
        """Holders that have to go; a name that was not seen counts as one."""
        return self.holders + max(0, self.limit - self.names)


@dataclass(slots=True)
class Held:
    """What one item holds: bytes that nobody else has, and by key how often it holds the others.

    ``never``: bytes that stay whatever is deleted.
    """

    alone: int = 0
    here: dict[str, int] = field(default_factory=dict)
    never: dict[str, Claim] = field(default_factory=dict)


class Ledger:
    """The holders of every inode that more than one thing may hold, over all repositories of a cache.

    First all of a repository is counted, then what its items hold is asked. ``reflinks``: whether files of
    this file system may share extents.
    """

    def __init__(self, *, reflinks: bool = False) -> None:
        self._reflinks = reflinks
        self._known: dict[str, _Holders] = {}
        self._reflinked: dict[str, int] = {}
        self._told: list[CacheItem] = []

    def knows(self, key: str) -> bool:
        """Whether a repository holds it."""
        return key in self._known

    def count(self, status: os.stat_result, path: str, holders: int) -> None:
        """Count one more name of a file, with its holders."""
        if status.st_nlink == 1 and holders == 1:
            return
        key = key_of(status)
        one = self._known.get(key)
        if one is None:
            one = self._known[key] = _Holders(status.st_nlink, self._exclusive(status, path))
        one.names += 1
        one.holders += holders

    def count_lot(self, lot: Lot) -> None:
        """Count the files of a lot that others may hold too."""
        for status, path in lot.apart:
            self.count(status, path, 1)

    def count_blob(self, blob: Blob) -> None:
        """Count a blob with all revisions that refer to it."""
        holders = max(1, blob.revisions)
        self.count(blob.status, blob.path, holders)
        payload = blob.payload
        if payload is None:
            return
        one = self._known.get(payload.key)
        if one is None:
            names = _FOR_EVER if payload.links is None else len(payload.links)
            one = self._known[payload.key] = _Holders(names + payload.names - 1, payload.allocated)
        if payload.links is not None and blob.path in payload.links:
            one.names += 1
            one.holders += holders

    def hold_lot(self, held: Held, lot: Lot) -> None:
        """Let an item hold all of a lot."""
        held.alone += lot.blocks * BLOCK
        for status, path in lot.apart:
            self.hold(held, status, path, 1)

    def hold_blob(self, held: Held, blob: Blob, holders: int) -> None:
        """Let an item hold a blob, and through it its payload."""
        self.hold(held, blob.status, blob.path, holders)
        payload = blob.payload
        if payload is not None:
            listed = payload.links is not None and blob.path in payload.links
            held.here[payload.key] = held.here.get(payload.key, 0) + (holders if listed else 0)

    def hold(self, held: Held, status: os.stat_result, path: str, holders: int) -> None:
        """Let an item hold one name of a file."""
        key = key_of(status)
        if key in self._known:
            held.here[key] = held.here.get(key, 0) + holders
        else:
            held.alone += self._exclusive(status, path)
        shared = self._reflinked.get(key, 0)
        if shared:
            # All names of the file may be deleted; the copies are not known.
            claim = Claim(f"reflink:{key}", 1, status.st_nlink + 1, shared)
            held.never[claim.key] = claim

    def use(self, apparent: int, held: Held) -> DiskUse:
        """What an item takes, as far as the holders are known by now."""
        alone, claims = held.alone, list(held.never.values())
        for key, here in held.here.items():
            one = self._known[key]
            if not one.allocated:
                continue
            if here >= one.needed:
                alone += one.allocated
            else:
                claims.append(Claim(key, here, one.needed, one.allocated))
        return DiskUse(apparent, alone, tuple(claims))

    def told(self, item: CacheItem) -> CacheItem:
        """The item, remembered: what is read later may hold its bytes too."""
        if item.use.claims:
            self._told.append(item)
        return item

    def corrections(self) -> Iterable[CacheItem]:
        """The items that hold bytes with a repository that was read after them, with all holders counted."""
        for item in self._told:
            claims = tuple(self._corrected(claim) for claim in item.use.claims)
            if claims != item.use.claims:
                yield replace(item, use=replace(item.use, claims=claims))

    def _corrected(self, claim: Claim) -> Claim:
        one = self._known.get(claim.key)
        if one is None or one.needed == claim.needed:
            return claim
        return replace(claim, needed=one.needed)

    def _exclusive(self, status: os.stat_result, path: str) -> int:
        """Bytes on disk of a file without those that reflinked copies hold too."""
        allocated = status.st_blocks * BLOCK
        if not self._reflinks or allocated < LEAST or not stat.S_ISREG(status.st_mode):
            return allocated
        key = key_of(status)
        if key not in self._reflinked:
            self._reflinked[key] = shared_extents(path, allocated)
        return allocated - self._reflinked[key]


def key_of(status: os.stat_result) -> str:
    """The key of the claims on a file."""
    return f"{status.st_dev}:{status.st_ino}"
