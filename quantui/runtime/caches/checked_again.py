"""Things looked at again before a plan is shown: whether they are still there, and who uses them at this moment."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.runtime.caches.processes import process_uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantui.domain.caches.items import CacheItem


def checked_again(
    chosen: Iterable[CacheItem], everything: Mapping[str, CacheItem]
) -> dict[str, CacheItem]:
    """``everything`` without the chosen things that are gone, with those that are there as they are used now.

    One pass over /proc. What a source of the inventory knew of users stays while those processes live.
    """
    found = dict(everything)
    wanted = {item.path: item for item in chosen}
    wanted.update({item.path: item for item in everything.values() if item.parent in wanted})
    uses = process_uses()
    for path, item in wanted.items():
        if not os.path.lexists(path):
            found.pop(path, None)
            continue
        names = (item.name,) if item.kind is Kind.HUB else ()
        now = uses.of(path, names)
        known = {use.pid for use in now}
        before = (use for use in item.users if use.pid not in known and _lives(use.pid))
        found[path] = replace(item, users=(*now, *before))
    return found


def _lives(pid: int) -> bool:
    return os.path.lexists(f"/proc/{pid}")
