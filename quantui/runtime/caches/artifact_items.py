"""What quantui merged and quantized, whole or not: the artifact store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.runtime.artifacts import RECORD, ArtifactStore
from quantui.runtime.caches.tree_items import Found, folders_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def artifact_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every folder of the artifact store."""
    root = ArtifactStore().root
    folders, problems = folders_in(root)
    yield from problems
    for path in folders:
        if stop():
            return
        kind = Kind.MERGED if "--merged--" in path.name else Kind.QUANTIZED
        if not (path / RECORD).is_file():
            kind = Kind.UNFINISHED
        yield from tree_item(kind, path, root, trashable=True)
