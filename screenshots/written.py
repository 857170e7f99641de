"""The sparse files of the pictures counted as if they had been written: their length stands for their blocks."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import world

from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind
from quantui.runtime.caches import inventory, scan_process

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from quantui.domain.caches.items import ScanProblem


@contextlib.contextmanager
def as_if_written() -> Iterator[None]:
    """For as long as this lasts the inventory counts lengths."""
    real, first = inventory.scan, scan_process._FIRST

    def scan(
        *, kinds: Collection[Kind] | None = None, stop: Callable[[], bool] = inventory.never
    ) -> Iterator[CacheItem | ScanProblem]:
        lengths = _lengths()
        for found in real(kinds=kinds, stop=stop):
            yield (
                replace(found, use=_use(found, lengths)) if isinstance(found, CacheItem) else found
            )

    inventory.scan = scan
    # Another process would count the blocks that there are.
    scan_process._FIRST = sys.maxsize
    try:
        yield
    finally:
        inventory.scan, scan_process._FIRST = real, first


def _lengths() -> dict[str, int]:
    """The length of every file, by the key of its claims."""
    found = {}
    for path in world.HOME.rglob("*"):
        status = path.lstat()
        found[f"{status.st_dev}:{status.st_ino}"] = status.st_size
    return found


def _use(item: CacheItem, lengths: dict[str, int]) -> DiskUse:
    use = item.use
    if item.kind is Kind.HUB:
        # What is not downloaded to the end counts on the disk, and not as length.
        blobs = Path(item.path, "blobs")
        return replace(use, alone=sum(one.lstat().st_size for one in blobs.iterdir()))
    claims = tuple(Claim(one.key, one.here, one.needed, lengths[one.key]) for one in use.claims)
    shared = sum(claim.allocated for claim in claims)
    return DiskUse(use.apparent, max(0, use.apparent - shared), claims)
