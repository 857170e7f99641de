"""Everything that takes disk, from all its sources: what each thing is, what it takes, who uses it.

Sources that answer at once come first. Then processes and profiles are looked up and what they use is given again;
after that come engines and packages, and what records of runs tell. A later item with the same path replaces the
earlier one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheDisk, CacheItem, Kind, ScanProblem
from quantui.runtime import paths
from quantui.runtime.caches.artifact_items import artifact_items
from quantui.runtime.caches.compiled_items import compiled_items, package_items
from quantui.runtime.caches.engine_items import engine_items
from quantui.runtime.caches.folder_items import folder_items
from quantui.runtime.caches.own_items import demo_items, measured_items
from quantui.runtime.caches.run_items import defect_items, run_items
from quantui.runtime.caches.trash_items import trash_items
from quantui.runtime.caches.tree_items import Found

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def never() -> bool:
    """Nobody stops it."""
    return False


@dataclass(frozen=True)
class Inventory:
    """All that :func:`scan` gave: items by path in the order they were found, problems, and the file systems."""

    items: Mapping[str, CacheItem]
    problems: tuple[ScanProblem, ...]
    disks: tuple[CacheDisk, ...]


def hub_items(stop: Callable[[], bool]) -> Iterator[Found]:
    """What the Hub caches hold."""
    from quantui.runtime.caches import hub_scan
    from quantui.runtime.caches.roots import hub_roots

    for root in hub_roots():
        if stop():
            return
        yield from hub_scan.hub_items(root)


def folders_added(stop: Callable[[], bool]) -> Iterator[Found]:
    """Models and adapters in the folders that the user added, but for those that another source gives."""
    from quantui.runtime.caches.roots import hub_roots

    own = (paths.artifacts_dir(), paths.engines_dir(), paths.home() / "demo", *hub_roots())
    return folder_items(stop, elsewhere=[str(root) for root in own])


_Source = Callable[[Callable[[], bool]], Iterator[Found]]

_Sources = tuple[tuple[frozenset[Kind], _Source], ...]

_QUICK: _Sources = (
    (frozenset({Kind.MERGED, Kind.QUANTIZED, Kind.UNFINISHED, Kind.BROKEN}), artifact_items),
    (frozenset({Kind.HUB, Kind.REVISION, Kind.INCOMPLETE}), hub_items),
    (frozenset({Kind.TRASH}), trash_items),
    (frozenset({Kind.MEASURED}), measured_items),
    (frozenset({Kind.MEASURED, Kind.UNFINISHED}), demo_items),
    (frozenset({Kind.RUN}), defect_items),
    (frozenset({Kind.FOLDER}), folders_added),
    (frozenset({Kind.RUN}), run_items),
    (frozenset({Kind.COMPILED}), compiled_items),
)
"""The kinds that a source may give, and the source: those with few files first."""

_SLOW: _Sources = (
    (frozenset({Kind.ENGINE, Kind.UNFINISHED}), engine_items),
    (frozenset({Kind.PACKAGES}), package_items),
)
"""Those with tens of thousands of files each."""


def scan(
    *, kinds: Collection[Kind] | None = None, stop: Callable[[], bool] = never
) -> Iterator[Found]:
    """Every thing of ``kinds`` (None: all) and every problem, as they are found; ends early once ``stop()``.

    A later item with the same path replaces the earlier one: it then also says who uses it.
    """
    known: dict[str, CacheItem] = {}
    for sources in (_QUICK, _SLOW):
        fresh: dict[str, CacheItem] = {}
        for found in _given_by(sources, kinds, stop):
            if isinstance(found, CacheItem):
                known[found.path] = fresh[found.path] = found
            yield found
        if fresh and not stop():
            from quantui.runtime.caches.uses import used

            for item in used(fresh, known, stop):
                known[item.path] = item
                yield item
    if known and not stop():
        from quantui.runtime.caches.uses import remembered

        yield from remembered(known, stop)


def things(
    kinds: Collection[Kind] | None = None, *, stop: Callable[[], bool] = never
) -> Iterator[Found]:
    """As :func:`scan`, without looking at processes, profiles and records of runs."""
    yield from _given_by((*_QUICK, *_SLOW), kinds, stop)


def _given_by(
    sources: _Sources, kinds: Collection[Kind] | None, stop: Callable[[], bool]
) -> Iterator[Found]:
    wanted = frozenset(Kind) if kinds is None else frozenset(kinds)
    for given, source in sources:
        if not given & wanted:
            continue
        for found in source(stop):
            if stop():
                return
            if not isinstance(found, CacheItem) or found.kind in wanted:
                yield found


def collect(
    *, kinds: Collection[Kind] | None = None, stop: Callable[[], bool] = never
) -> Inventory:
    """What :func:`scan` gives, all at once."""
    items: dict[str, CacheItem] = {}
    problems: list[ScanProblem] = []
    for found in scan(kinds=kinds, stop=stop):
        if isinstance(found, CacheItem):
            items[found.path] = found
        else:
            problems.append(found)
    return Inventory(items, tuple(problems), cache_disks(items.values()))


def cache_disks(items: Iterable[CacheItem] = ()) -> tuple[CacheDisk, ...]:
    """The file systems of the known roots and of those of ``items``, each once."""
    from quantui.runtime.caches.roots import known_roots

    found: dict[int, CacheDisk] = {}
    roots = [str(root.path) for root in known_roots()]
    for root in dict.fromkeys([*roots, *(item.root for item in items)]):
        with contextlib.suppress(OSError, StopIteration):
            folder = Path(root)
            there = next(path for path in (folder, *folder.parents) if path.exists())
            device = there.stat().st_dev
            usage = shutil.disk_usage(there)
            before = found[device].roots if device in found else ()
            found[device] = CacheDisk(device, (*before, root), usage.free, usage.total)
    return tuple(found.values())
