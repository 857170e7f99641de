"""The cells of the cache screen's tables: a place, a thing that takes the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.domain.caches.words import aged, shown, sized
from quantui.tui.cache_view import EVERYTHING
from quantui.tui.widgets.row_table import Cell, Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.caches.items import CacheItem
    from quantui.tui.cache_view import Line, Place

PLACE_COLUMNS = (
    Column("place", 10),
    Column("size", 10, right=True),
    Column("things", 6, right=True),
    Column("where", 12, grows=True, least=56),
)
THING_COLUMNS = (
    Column("", 1),
    Column("size", 10, right=True),
    Column("frees", 10, right=True, least=70),
    Column("name", 16, grows=True),
    Column("kind", 10),
    Column("used", 9, right=True),
    Column("about", 18, grows=True, least=104),
)


def place_cells(place: Place) -> Sequence[Cell | str]:
    """A place, what it takes and where it is."""
    if not place.things:
        return (
            Cell(place.name, "muted"),
            Cell("-", "muted"),
            "",
            Cell(shown(place.where), "muted"),
        )
    name = Cell(place.name, "strong") if place.name == EVERYTHING else place.name
    return (name, sized(place.on_disk), f"{place.things:,}", Cell(shown(place.where), "muted"))


def thing_cells(line: Line, mark: str, now: float) -> Sequence[Cell | str]:
    """A thing: its mark, bytes, name, kind, when it was used, and what it was made from."""
    item = line.item
    fold = ("▾ " if line.opened else "▸ ") if line.parts else "  "
    name = f"{fold}{shown(item.name)}"
    if line.where:
        name += f"  in {shown(line.where)}"
    if line.whole is not None:
        # Its whole is right above it: what is the part's own comes first.
        own = shown(item.name).removeprefix(shown(line.whole.name)).strip() or shown(item.name)
        name = f"    {own}  {shown(item.detail)}"
    return (
        Cell(mark, "strong"),
        sized(item.use.on_disk),
        frees_cell(item),
        Cell(name, "muted" if line.whole else ""),
        kind_cell(item),
        used_cell(item, now),
        Cell(origin(item) if line.whole is None else "", "muted"),
    )


def frees_cell(item: CacheItem) -> Cell:
    """What deleting it alone gives back: ``all`` of it, or how much."""
    frees = item.use.frees
    if frees >= item.use.on_disk:
        return Cell("all", "muted")
    return Cell(sized(frees) if frees else "nothing", "warn")


def kind_cell(item: CacheItem) -> Cell:
    """Its kind, in the words that the filter takes; what is damaged or half made stands out."""
    doubtful = item.kind in (Kind.UNFINISHED, Kind.BROKEN, Kind.INCOMPLETE)
    return Cell(
        f"{'! ' if item.kind is Kind.BROKEN else ''}{item.kind}", "warn" if doubtful else ""
    )


def used_cell(item: CacheItem, now: float) -> Cell:
    """``in use``, or how long ago it was."""
    if item.busy:
        return Cell("in use", "good")
    if item.used_at is None:
        return Cell("unknown", "muted")
    return Cell(aged(max(0.0, now - item.used_at)), "muted")


def origin(item: CacheItem) -> str:
    """What it was made from and which profiles use it, in a few words."""
    profiles = ", ".join(shown(path.rpartition("/")[2]) for path in item.profiles[:3])
    made = " + ".join(shown(one).removeprefix("adapter ") for one in item.made_from)
    if item.kind is Kind.ENGINE:
        # The lock that it was made from is a hash; the versions say more.
        made = shown(item.detail)
    if profiles:
        return f"for {profiles}" + (f"; {made}" if made else "")
    return made or shown(item.detail)
