"""``quantui cache ls``: a line for each thing, its sizes first; the places, the disk and the budget below."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from quantui.cli.cache_looking import fitted, kinds_of, look, width_of
from quantui.cli.output import print_json
from quantui.domain.caches.deletion import freed_by, on_disk, outermost
from quantui.domain.caches.filters import parse_filter, parse_sort
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.json_form import disk_json, item_json, problem_json
from quantui.domain.caches.naming import refuse_bare_keys, same_named
from quantui.domain.caches.pruning import PruneRules, budget_used, prune
from quantui.domain.caches.words import (
    aged,
    area_of,
    budget_words,
    shown,
    sized,
    state_of,
    summed,
)
from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from quantui.runtime.caches.inventory import Inventory
    from quantui.runtime.settings import CacheSettings

_HEAD = f"{'SIZE':>10}  {'FREES':>10}  {'UNUSED':>9}  {'KIND':<10}  NAME"

_MOST_PROBLEMS = 12
_LEAST_STATE = 10


def show(args: argparse.Namespace) -> int:
    """Print what matches, then the sums; or one JSON document."""
    from quantui.domain.quantities import count
    from quantui.runtime.settings import read_settings

    refuse_bare_keys(args.words)
    wanted = parse_filter(" ".join(args.words))
    order = parse_sort(args.sort)
    kinds = kinds_of(args.kinds)
    limit = None if args.limit is None else count("--limit", args.limit, "things", most=10**9)
    settings = read_settings().cache
    revisions = args.revisions or any(term.key == "kind" for term in wanted.terms)
    revisions = revisions or (kinds is not None and Kind.REVISION in kinds)
    found = look()
    now = time.time()
    matching = order.apply(
        item
        for item in found.items.values()
        if (kinds is None or item.kind in kinds)
        and (revisions or item.kind is not Kind.REVISION)
        and wanted.matches(item, now)
    )
    rows = matching if limit is None else matching[:limit]
    if args.json:
        print_json(_document(found, matching, rows, settings))
        return ExitCode.OK
    narrowed = bool(wanted.terms) or kinds is not None
    for line in _lines(found, matching, rows, settings, narrowed=narrowed, now=now):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return ExitCode.OK


def _lines(
    found: Inventory,
    matching: Sequence[CacheItem],
    rows: Sequence[CacheItem],
    settings: CacheSettings,
    *,
    narrowed: bool,
    now: float,
) -> Iterator[str]:
    if rows:
        yield _HEAD
    alike = same_named(found.items.values())
    for item in rows:
        yield _row(item, now, where=shown(item.root) if item.path in alike else "")
    if len(rows) < len(matching):
        yield f"and {len(matching) - len(rows):,} more"
    if rows:
        yield ""
    if narrowed:
        if matching:
            frees = f"{sized(freed_by(matching))} freed if they went"
            yield f"matching: {summed(outermost(matching))}: {sized(on_disk(matching))}, {frees}"
        else:
            yield "Nothing matches."
        yield ""
    elif not matching:
        yield "Nothing takes any disk yet."
    yield from _places(found)
    yield ""
    for disk in found.disks:
        free = f"{sized(disk.free_bytes)} free of {sized(disk.total_bytes)}"
        yield f"{'disk':<11} {free}  {', '.join(map(shown, disk.roots[:3]))}" + (
            f" and {len(disk.roots) - 3} more" if len(disk.roots) > 3 else ""
        )
    yield f"{'budget':<11} {budget_words(budget_used(found.items.values()), settings.budget)}"
    yield from _hint(found, settings, now)
    for problem in found.problems[:_MOST_PROBLEMS]:
        yield f"! {shown(problem.path)}: {shown(problem.what)} {shown(problem.fix)}".rstrip()
    if len(found.problems) > _MOST_PROBLEMS:
        yield f"! and {len(found.problems) - _MOST_PROBLEMS:,} more problems; --json lists all"


def _row(item: CacheItem, now: float, *, where: str) -> str:
    unused = "unknown" if item.used_at is None else aged(max(0.0, now - item.used_at))
    unused = "<1 min" if unused == "now" else unused
    row = (
        f"{sized(item.use.on_disk):>10}  {sized(item.use.frees):>10}  {unused:>9}  "
        f"{item.kind:<10}  {shown(item.name)}"
    )
    row += f"  in {where}" if where else ""
    state = state_of(item)
    if not state:
        return row
    state = f"  ({state})"
    if not sys.stdout.isatty():
        return row + state
    # A name is needed whole, to be typed; the rest of the line is cut to the terminal.
    room = shutil.get_terminal_size().columns - width_of(row)
    return row + fitted(state, room) if room > _LEAST_STATE else row


def _places(found: Inventory) -> Iterator[str]:
    """A line for each area, and their sum."""
    areas: dict[str, list[CacheItem]] = {}
    for item in outermost(found.items.values()):
        areas.setdefault(area_of(item), []).append(item)
    for area, items in sorted(areas.items(), key=lambda one: -on_disk(one[1])):
        yield f"{area:<11} {sized(on_disk(items)):>10}  {summed(items)}"
    if len(areas) > 1:
        yield f"{'all':<11} {sized(on_disk(found.items.values())):>10}"


def _hint(found: Inventory, settings: CacheSettings, now: float) -> Iterator[str]:
    """What prune would do now, where it would do anything."""
    rules = PruneRules(
        budget=settings.budget,
        keep_free=settings.keep_free,
        trash_older_than=settings.trash_days * 86400.0,
    )
    frees = freed_by(prune(found.items, rules, now=now, disks=found.disks).items)
    if frees:
        yield f"`quantui cache prune` would free {sized(frees)}."


def _document(
    found: Inventory,
    matching: Sequence[CacheItem],
    rows: Sequence[CacheItem],
    settings: CacheSettings,
) -> dict[str, Any]:
    """The ``--json`` document."""
    everything = found.items.values()
    areas: dict[str, list[CacheItem]] = {}
    for item in outermost(everything):
        areas.setdefault(area_of(item), []).append(item)
    return {
        "items": [item_json(item) for item in rows],
        "matching": len(matching),
        "bytes_on_disk": on_disk(matching),
        "frees_bytes": freed_by(matching),
        "areas": [
            {"name": area, "things": len(items), "bytes_on_disk": on_disk(items)}
            for area, items in areas.items()
        ],
        "disks": [disk_json(disk) for disk in found.disks],
        "budget_bytes": settings.budget,
        "budget_used_bytes": budget_used(everything),
        "keep_free_bytes": settings.keep_free,
        "problems": [problem_json(problem) for problem in found.problems],
    }
