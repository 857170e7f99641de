"""What a growing choice of things frees, kept up to date as things are added and taken back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quantui.domain.caches.items import CacheItem


class Freeing:
    """Bytes that are freed for each of several goals; a goal counts the things that its function is true of.

    :func:`~quantui.domain.caches.deletion.freed_by` of the same things gives the same; here a thing more costs no
    look at all the others. No thing may be a part of another that was added.
    """

    def __init__(self, holds: Iterable[Callable[[CacheItem], bool]]) -> None:
        self._holds = tuple(holds)
        self._freed = [0] * len(self._holds)
        self._claims: list[dict[str, tuple[int, int, int]]] = [{} for _ in self._holds]

    def freed(self, goal: int) -> int:
        """Bytes on disk that the things added so far free for the goal with this number."""
        return self._freed[goal]

    def add(self, item: CacheItem) -> None:
        """Count a thing."""
        self._count(item, 1)

    def remove(self, item: CacheItem) -> None:
        """Count a thing no more that was added."""
        self._count(item, -1)

    def _count(self, item: CacheItem, sign: int) -> None:
        for number, holds in enumerate(self._holds):
            if not holds(item):
                continue
            self._freed[number] += sign * item.use.alone
            claims = self._claims[number]
            for claim in item.use.claims:
                here, needed, allocated = claims.get(claim.key, (0, claim.needed, claim.allocated))
                after = here + sign * claim.here
                # The largest number that anybody said, as where they are joined: it never shrinks again.
                most, size = max(needed, claim.needed), max(allocated, claim.allocated)
                was = allocated if here >= needed else 0
                claims[claim.key] = (after, most, size)
                self._freed[number] += (size if after >= most else 0) - was
