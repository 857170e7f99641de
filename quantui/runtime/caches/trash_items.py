"""What was moved away and can be had back until it is emptied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind, Rebuild
from quantui.runtime.caches.roots import known_roots
from quantui.runtime.caches.tree_items import Found, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BACK = Rebuild("moved back: quantui cache undo")
_HALF = Rebuild("its deletion has begun: parts of it are gone", possible=False)


def trash_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """What lies in the trash of every known root, by its old name; what is half deleted cannot be had back."""
    from quantui.runtime.caches.trash import trashed_in

    for root in dict.fromkeys(os.path.realpath(root.path) for root in known_roots()):
        for one in trashed_in(root):
            if stop():
                return
            where = f"was {one.path}" if one.path else "nothing says what it was"
            yield from tree_item(
                Kind.TRASH,
                Path(one.folder),
                Path(root),
                name=one.name,
                detail=f"half deleted, {where}" if one.half else f"{one.kind.value}, {where}",
                used_at=one.at,
                made_at=one.at,
                rebuild=_HALF if one.half else _BACK,
                trashable=not one.half,
                stop=stop,
            )
