"""Things looked at again before a plan is shown: whether they are still there, and who uses them at this moment."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.runtime.caches.measuring import never
from quantui.runtime.caches.uses import with_users

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantui.domain.caches.items import CacheItem


def checked_again(
    chosen: Iterable[CacheItem], everything: Mapping[str, CacheItem]
) -> dict[str, CacheItem]:
    """``everything`` without the chosen things that are gone, with those that are there as they are used now.

    One pass over /proc. Users that the inventory told stay while those processes live.
    """
    found = dict(everything)
    paths = {item.path for item in chosen}
    wanted: dict[str, CacheItem] = {}
    for path, item in everything.items():
        if path not in paths and item.parent not in paths:
            continue
        if os.path.lexists(path):
            users = tuple(use for use in item.users if os.path.lexists(f"/proc/{use.pid}"))
            wanted[path] = replace(item, users=users)
        else:
            del found[path]
    found.update(wanted)
    # A part is known by the name of its whole.
    wholes = {item.parent: found[item.parent] for item in wanted.values() if item.parent in found}
    found.update({item.path: item for item in with_users({**wholes, **wanted}, never)})
    return found
