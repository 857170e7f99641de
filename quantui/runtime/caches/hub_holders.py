"""Who holds bytes of a Hub cache together: revisions that share a blob, names of one inode, links to one payload.

A holder is a name of the bytes in one revision: a blob that two revisions link to has two, a blob that none links to
has one. Bytes are freed when all their holders are gone, so everything that names a file says the same number of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantui.domain.caches.items import CacheItem, Claim


@dataclass(slots=True)
class Holders:
    """Of one inode: names and holders that were seen, ``limit`` names that there are, bytes on disk."""

    limit: int
    allocated: int
    names: int = 0
    holders: int = 0

    @property
    def needed(self) -> int:
        """Holders that have to go; a name that was not seen counts as one."""
        return self.holders + max(0, self.limit - self.names)


class Ledger:
    """The holders of every inode that more than one thing may hold, over all repositories of a cache."""

    def __init__(self) -> None:
        self._known: dict[str, Holders] = {}
        self._told: list[CacheItem] = []

    def add(self, seen: Mapping[str, Holders]) -> None:
        """Note what one repository holds."""
        for key, one in seen.items():
            before = self._known.get(key)
            if before is None:
                self._known[key] = replace(one)
            else:
                before.names += one.names
                before.holders += one.holders

    def needed(self, key: str) -> int:
        """Holders of ``key`` as far as they are known by now."""
        return self._known[key].needed

    def knows(self, key: str) -> bool:
        """Whether a repository holds it."""
        return key in self._known

    def told(self, item: CacheItem) -> CacheItem:
        """Remember what was said of an item."""
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
        return claim if one is None else replace(claim, needed=one.needed)
