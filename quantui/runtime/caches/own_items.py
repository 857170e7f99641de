"""What quantui keeps so that it need not measure, ask or train again: its cache, and the demo's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind, ProcessUse, Rebuild
from quantui.runtime import paths
from quantui.runtime.caches.lock_holders import maker
from quantui.runtime.caches.tree_items import Found, entries_in, tree_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TOLD = {
    "references": ("what 16-bit models answer, which quantized ones are compared with",
                   "measured again when a model is quantized"),
    "capabilities": ("what engines can do", "asked again, some seconds an engine"),
    "file-hashes.json": ("hashes of large files", "every checkpoint is read again when it is next used"),
    "history.json": ("summaries of runs", "made again from the records of the runs"),
    "calibration": ("calibration texts", "fetched again when a model is quantized"),
}  # fmt: skip
"""Names in the cache: what it is, and what deleting it costs."""

_DEMO = Rebuild("made again by quantui demo, in two to three minutes on 2 cores", seconds=150.0)


def measured_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """Every folder and file of quantui's own cache, each whole; lock files are no things."""
    root = paths.cache_dir()
    folders, files, problems = entries_in(root)
    yield from problems
    for path in (*folders, *files):
        if stop():
            return
        if path.suffix == ".lock":
            continue
        detail, cost = _TOLD.get(path.name, ("measured or asked once", "measured or asked again"))
        yield from tree_item(
            Kind.MEASURED,
            path,
            root,
            detail=detail,
            rebuild=Rebuild(cost),
            trashable=True,
            users=_writers(path),
        )


def _writers(path: Path) -> tuple[ProcessUse, ...]:
    """Who holds a lock in the folder: a run that measures a model holds one (reference_cache.py)."""
    try:
        locks = sorted(path.glob("*.lock"))
    except OSError:
        return ()
    found = {use.pid: use for lock in locks if (use := maker(lock)) is not None}
    return tuple(found.values())


def demo_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """The demo's model and adapter, of this and of earlier versions of quantui."""
    root = paths.home() / "demo"
    folders, _, problems = entries_in(root)
    yield from problems
    for path in folders:
        if stop():
            return
        whole = (path / "demo.json").is_file()
        yield from tree_item(
            Kind.MEASURED if whole else Kind.UNFINISHED,
            path,
            root,
            name=f"demo {path.name}",
            detail="the demo's model and adapter" if whole else "a demo not made to the end",
            rebuild=_DEMO,
            trashable=True,
        )
