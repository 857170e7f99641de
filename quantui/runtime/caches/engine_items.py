"""The environments that quantui made, whole or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.runtime import engine_store, paths
from quantui.runtime.caches.tree_items import Found, folders_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def engine_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every folder of the engines."""
    root = paths.engines_dir()
    folders, problems = folders_in(root)
    yield from problems
    for path in folders:
        if stop():
            return
        record = engine_store.read_record(path)
        kind = Kind.UNFINISHED if record is None else Kind.ENGINE
        yield from tree_item(kind, path, root, made_at=record.created if record else None)
