"""What was moved away, and having it back: ``<root>/.quantui-trash/<token>/it``, with a note of what it was.

Moving there is one rename: a thing is in its place, whole, or it is here. What is being deleted is moved here first
and marked; a mark says that it may lack parts, and it never comes back.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.caches.guards import guarded
from quantui.runtime.caches.permitted import refuse_misplaced
from quantui.runtime.caches.places import Place, known_place, opened_parent
from quantui.runtime.caches.trash_moves import gone, opened_token, put_back
from quantui.runtime.caches.trash_notes import IT, Trashed, read_trashed, trashed_in

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Trashed", "last_trashed", "read_trashed", "restore", "trashed_in"]


def last_trashed() -> tuple[Trashed, ...]:
    """What was moved to the trash last, all that went together and is still whole; () where there is nothing."""
    from quantui.runtime.caches.roots import known_roots

    roots = dict.fromkeys(os.path.realpath(root.path) for root in known_roots())
    whole = [found for root in roots for found in trashed_in(root) if not found.half]
    if not whole:
        return ()
    newest = max(whole, key=lambda found: found.at)
    return tuple(found for found in whole if found.batch == newest.batch)


def restore(thing: CacheItem | Trashed | str | os.PathLike[str]) -> Path:
    """Move a thing of the trash back to where it was; gives that path.

    ``thing``: the item, or the path of its token's folder. Raises ``trash.gone`` (exit code 5), ``trash.half``,
    ``trash.taken``, ``trash.busy`` and ``trash.no-way-back`` (3).
    """
    if isinstance(thing, CacheItem):
        folder = thing.path
    elif isinstance(thing, Trashed):
        folder = thing.folder
    else:
        folder = os.fspath(thing)
    folder = folder.removesuffix(f"/{IT}")
    with opened_token(folder) as moved:
        found = read_trashed(folder)
        if found is None:
            raise gone(folder)
        if found.half:
            raise QuantuiError(
                "trash.half",
                f"{found.name} cannot be had back.",
                "Its deletion has begun: parts of it are gone.",
                "Empty it: quantui cache prune",
                ExitCode.DOES_NOT_FIT,
            )
        place = known_place(found.path, found.root)
        refuse_misplaced(found.kind, place)
        with guarded(found.kind, place), _way_back(place) as parent:
            put_back(moved, parent, place.name)
        return Path(found.path)


@contextlib.contextmanager
def _way_back(place: Place) -> Iterator[int]:
    with contextlib.ExitStack() as opened:
        try:
            parent = opened.enter_context(opened_parent(place))
        except FileNotFoundError:
            raise QuantuiError(
                "trash.no-way-back",
                f"The folder that {place.path} lay in is gone.",
                "",
                "Make it again, then: quantui cache undo",
                ExitCode.DOES_NOT_FIT,
            ) from None
        yield parent
