"""The records and logs of runs, and what quantui wrote of its own defects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind, Rebuild
from quantui.runtime import paths
from quantui.runtime.caches.tree_items import Found, entries_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GONE = Rebuild("it is a record: nothing makes it again", possible=False)


def run_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every run, the newest first: one pass over thousands of small folders."""
    root = paths.runs_dir()
    folders, _, problems = entries_in(root)
    yield from problems
    for path in reversed(folders):
        if stop():
            return
        yield from tree_item(
            Kind.RUN, path, root, detail="a run", rebuild=_GONE, trashable=True, stop=stop
        )


def defect_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """The reports of defects, which cli/main.py writes."""
    root = paths.home()
    for path in entries_in(root)[1]:
        if stop():
            return
        if path.name.startswith("crash-") and path.suffix == ".txt":
            yield from tree_item(
                Kind.RUN,
                path,
                root,
                detail="what a defect of quantui left, for a report",
                rebuild=_GONE,
                trashable=True,
            )
