"""The records and logs of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.runtime import paths
from quantui.runtime.caches.tree_items import Found, folders_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def run_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every run, the newest first."""
    root = paths.runs_dir()
    folders, problems = folders_in(root)
    yield from problems
    for path in reversed(folders):
        if stop():
            return
        yield from tree_item(Kind.RUN, path, root, trashable=True)
