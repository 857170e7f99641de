"""What takes the disk: the Hub's cache, artifacts, engines and runs, and the largest things in them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import one_line, sanitize
from quantui.tui.screens.over import OverScreen
from quantui.tui.widgets.row_table import Cell, Column, RowTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from quantui.runtime.cache_items import CacheDisk, CacheItem
    from quantui.runtime.cache_sizes import CacheSize

ALL = "everything"
_FREE = {
    "hub cache": "hf cache rm REPO frees a repository; hf cache prune its unused revisions",
    "artifacts": "delete its folder; quantui merge BASE ADAPTER --discard an unfinished merge",
    "engines": "quantui engine rm NAME",
    "runs": "delete a run's folder; records are small",
    "cache": "delete the folder: it costs only time",
}
"""How to free each area today."""
_TELL_EVERY_S = 0.1


@dataclass(frozen=True)
class Found:
    """What was measured so far; ``done`` once there is nothing left to measure."""

    areas: tuple[CacheSize, ...] = ()
    items: tuple[CacheItem, ...] = ()
    disks: tuple[CacheDisk, ...] = ()
    done: bool = False
    since: float = field(default=0.0, compare=False)

    @property
    def total(self) -> int:
        """Bytes of all areas that could be read."""
        return sum(area.bytes_on_disk or 0 for area in self.areas)

    def of(self, area: str) -> tuple[CacheItem, ...]:
        """The items of an area, the largest first."""
        there = (one for one in self.items if area in (ALL, one.area))
        return tuple(sorted(there, key=lambda one: (-one.bytes_on_disk, one.name)))

    def free_beside(self, area: str) -> CacheDisk | None:
        """The disk that an area lies on."""
        return next((disk for disk in self.disks if area in disk.areas), None)


class CacheScreen(OverScreen):
    """Areas above, the things in the highlighted one below; nothing is changed here."""

    TITLE = "Cache"
    ABOUT = "measuring what takes the disk..."
    HELP = """
    Everything that quantui and the Hub keep on disk, measured now. Above: the places; below: the things in
    the highlighted place, the largest first. Nothing is deleted here: each place says which command frees it.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "close", "back", show=False),
        Binding("tab", "app.focus_next", "other table"),
        Binding("r", "refresh", "measure again"),
    ]
    DEFAULT_CSS = """
    CacheScreen #areas { height: 7; margin-bottom: 1; }
    CacheScreen #items { height: 1fr; }
    CacheScreen #told { height: auto; max-height: 5; padding: 0 0; margin-top: 1; }
    """

    class Measured(Message):
        """More was measured."""

        def __init__(self, found: Found) -> None:
            self.found = found
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            """A newer one holds all of an older one."""
            return isinstance(message, CacheScreen.Measured)

    def __init__(self) -> None:
        super().__init__()
        self.found = Found()

    def compose_body(self) -> Iterable[Widget]:
        """Two tables and what there is to say of the highlighted row."""
        yield RowTable[str](
            (
                Column("place", 10),
                Column("size", 10, right=True),
                Column("things", 7, right=True),
                Column("of the disk", 12, right=True, least=70),
                Column("where", 20, grows=True),
            ),
            self._area_cells,
            id="areas",
        )
        yield RowTable["CacheItem"](
            (
                Column("size", 10, right=True),
                Column("name", 22, grows=True),
                Column("what it is", 24, grows=True),
                Column("used", 8, right=True),
            ),
            self._item_cells,
            id="items",
        )
        yield Static(id="told", markup=False)

    @property
    def _areas(self) -> RowTable[str]:
        return self.query_one("#areas", RowTable)

    @property
    def _items(self) -> RowTable[CacheItem]:
        return self.query_one("#items", RowTable)

    def on_mount(self) -> None:
        """Measure once it is on the screen."""
        self._areas.show((ALL,))
        self.call_after_refresh(self.measure)

    @work(thread=True, exclusive=True, group="cache", exit_on_error=False)
    def measure(self) -> None:
        """Measure everything; screens hear of it a few times a second."""
        from quantui.runtime.cache_items import cache_disks, cache_items
        from quantui.runtime.cache_sizes import each_cache_size

        worker = get_current_worker()
        began = time.time()
        areas: list[CacheSize] = []
        items: list[CacheItem] = []
        disks = cache_disks()
        told = 0.0

        def tell(*, done: bool = False) -> None:
            nonlocal told
            if done or time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                found = Found(tuple(areas), tuple(items), disks, done, began)
                self.post_message(self.Measured(found))

        for item in cache_items():
            items.append(item)
            tell()
            if worker.is_cancelled:
                return
        for area in each_cache_size():
            areas.append(area)
            tell()
            if worker.is_cancelled:
                return
        tell(done=True)

    def on_cache_screen_measured(self, message: Measured) -> None:
        """Draw what is known now; cursors stay where they are."""
        self.found = found = message.found
        order = sorted(found.areas, key=lambda area: -(area.bytes_on_disk or 0))
        self._areas.show((ALL, *(area.name for area in order)))
        self._show_items()
        state = "" if found.done else "measuring, so far "
        spare = found.disks[0] if found.disks else None
        room = (
            f"; the disk has {format_bytes(spare.free_bytes)} free of {format_bytes(spare.total_bytes)}"
            if spare and len(found.disks) == 1
            else ""
        )
        self.say(f"{state}{format_bytes(found.total)} in {len(found.areas)} places{room}")

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        """Another place shows its things; another thing says what it is."""
        if message.table.id == "areas":
            self._show_items()
        self._say_more()

    def _show_items(self) -> None:
        chosen = self._areas.row or ALL
        rows = self.found.of(chosen)
        if rows != self._items.rows:
            self._items.show(rows)
        self._say_more()

    def _area(self, name: str | None) -> CacheSize | None:
        return next((area for area in self.found.areas if area.name == name), None)

    def _say_more(self) -> None:
        """The highlighted thing in full, or the place, with its problem and how to free it."""
        self.query_one("#told", Static).update(self._more())

    def _more(self) -> Content:
        item = self._items.row if self._items.has_focus else None
        name = item.area if item else self._areas.row
        lines: list[Content] = []
        if item is not None:
            lines.append(Content(f"{sanitize(item.name)}: {sanitize(item.detail)}"))
            lines.append(Content.styled(sanitize(item.path), "$text-muted"))
        area = self._area(name)
        if area is not None and item is None:
            lines.append(Content(sanitize(area.path)))
            if area.problem:
                lines.append(
                    Content.styled(f"! {one_line(area.problem)[:300]}", "bold $text-warning")
                )
                lines.append(Content(f"  fix  {one_line(area.fix)[:300]}"))
        if name == ALL and item is None and self.found.items:
            lines.append(Content("Move to a place: what is in it, and how it is freed."))
        elif name in _FREE:
            lines.append(Content.styled(f"To free it: {_FREE[name]}.", "$text-muted"))
        elif self.found.done and not self.found.items:
            lines.append(
                Content(
                    "Nothing is kept yet: models, engines and runs appear here once there are any."
                )
            )
        return Content("\n").join(lines)

    def _area_cells(self, name: str) -> Sequence[Cell | str]:
        if name == ALL:
            every = str(len(self.found.items)) if self.found.items else ""
            return (Cell(ALL, "strong"), format_bytes(self.found.total), every, "", "")
        area = self._area(name)
        if area is None:
            return (name,)
        if area.bytes_on_disk is None:
            size = Cell("unreadable", "bad") if area.problem else Cell("none yet", "muted")
            return (name, size, "", "", Cell(area.path, "muted"))
        disk = self.found.free_beside(name)
        share = f"{100 * area.bytes_on_disk / disk.total_bytes:.1f} %" if disk else "unknown"
        mark = "! " if area.problem else ""
        where = Cell(f"{mark}{area.path}", "warn" if mark else "muted")
        things = sum(item.area == name for item in self.found.items) or area.entries
        return (name, size_words(area.bytes_on_disk), str(things), share, where)

    def _item_cells(self, item: CacheItem) -> Sequence[Cell | str]:
        used = age(item.used_at, self.found.since)
        return (
            size_words(item.bytes_on_disk),
            item.name,
            Cell(item.detail, "muted"),
            Cell(used, "muted"),
        )

    def action_refresh(self) -> None:
        """Measure again."""
        self.say(self.ABOUT)
        self.measure()


def size_words(count: int) -> str:
    """A size on disk; small things are told in KiB."""
    return f"{count / 1024:.0f} KiB" if 0 < count < 1024**2 else format_bytes(count)


def age(then: float | None, now: float) -> str:
    """``3 h``, ``12 d`` ago; a clock that was set back counts as now."""
    if then is None:
        return "unknown"
    seconds = max(0.0, now - then)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"
