"""The cache screen's tables: they fill while the disk is looked at, and follow the place, the filter and the order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from quantui.domain.caches.filters import parse_filter
from quantui.domain.errors import QuantuiError
from quantui.tui import cache_words as words
from quantui.tui.bugs import tell_bug
from quantui.tui.cache_rows import PLACE_COLUMNS, THING_COLUMNS, place_cells, thing_cells
from quantui.tui.cache_view import (
    EVERYTHING,
    Line,
    Place,
    View,
    Viewer,
    Wanted,
    mark_of,
    next_order,
)
from quantui.tui.lane import Lane
from quantui.tui.screens.cache_scan import CacheScan
from quantui.tui.widgets.cache_tables import FilterLine, ThingTable
from quantui.tui.widgets.row_table import Cell, RowTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from textual import events
    from textual.widget import Widget
    from textual.widgets import Input


_BROAD, _HIGH, _LOW = 140, 30, 20
"""From so many columns on the places stand beside the things; by the number of lines more or less is told."""

_REST = 4.0
"""While the disk is looked at: so many times as long as putting in order took, it is left alone."""


class CacheList(CacheScan):
    """Places, things and a filter. What is done with the things is the subclass's."""

    TITLE = "Cache"
    ABOUT = "looking at what takes the disk..."
    AUTO_FOCUS = "#things"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("slash", "find", "filter", key_display="/"),
        Binding("o", "order", "sort"),
        Binding("tab", "app.focus_next", "places and things", show=False),
        Binding("r", "refresh", "scan again", show=False),
        Binding("c", "close", "back", show=False),
    ]
    DEFAULT_CSS = """
    CacheList #disks, CacheList #count {
        height: 1; text-wrap: nowrap; text-overflow: ellipsis; color: $text-muted;
    }
    CacheList #find { height: 1; border: none; padding: 0 1; background: $panel; }
    CacheList #both { height: 1fr; layout: vertical; }
    CacheList #places { height: 6; }
    CacheList #found { height: 1fr; }
    CacheList #things { height: 1fr; }
    CacheList #told { height: 4; }
    CacheList.-low #places { height: 4; }
    CacheList.-low #told { height: 2; }
    CacheList.-high #places { height: 8; margin-bottom: 1; }
    CacheList.-high #told { height: 5; margin-top: 1; }
    CacheList.-broad #both { layout: horizontal; }
    CacheList.-broad #places { width: 32; height: 100%; margin: 0 1 0 0; }
    CacheList.-broad #found { width: 1fr; height: 100%; }
    """

    class Viewed(Message):
        """What is to be shown was put in order; ``whole``: it is all there is."""

        def __init__(self, view: View, *, whole: bool) -> None:
            self.view = view
            self.whole = whole
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            """Only the newest is of interest."""
            return isinstance(message, CacheList.Viewed)

    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self._error: QuantuiError | None = None
        self._lane: Lane | None = None
        self._viewer = Viewer()
        self.whole = False
        """Whether what is shown is all there is: it is drawn a moment after the scan has ended."""
        self._cost_s = 0.0
        self._asked_at = 0.0
        self._now = time.time()

    @property
    def table(self) -> ThingTable:
        """The things."""
        return self.query_one(ThingTable)

    @property
    def _places(self) -> RowTable[Place]:
        return self.query_one("#places", RowTable)

    def compose_body(self) -> Iterable[Widget]:
        """The disks, the places, the filter, the things, and what there is to say of the highlighted one."""
        yield Static(id="disks", markup=False)
        with Container(id="both"):
            yield RowTable[Place](PLACE_COLUMNS, place_cells, id="places")
            with Vertical(id="found"):
                yield FilterLine(
                    placeholder="/ filter: size>10GB used>30d kind=merged llama",
                    id="find",
                    select_on_focus=False,
                )
                yield Static(id="count", markup=False)
                yield ThingTable(THING_COLUMNS, self._cells, id="things")
        yield Static(id="told", markup=False)

    def on_mount(self) -> None:
        """Show what is known from before at once, and look again."""
        app, kept = self.app, self.kept
        self._lane = Lane("cache-view", lambda error: tell_bug(app, error))
        line = self.query_one(FilterLine)
        with self.prevent(line.Changed):
            line.value = kept.text
        self._parse(kept.text)
        if kept.items:
            self.show_again()
        # While the screen is drawn for the first time the first rows are found.
        self.measure()

    def on_unmount(self) -> None:
        """Nothing is to be put in order any more."""
        if self._lane is not None:
            self._lane.drop()

    def on_resize(self, event: events.Resize) -> None:
        """Beside each other where there is room for it."""
        self.set_class(event.size.width >= _BROAD, "-broad")
        self.set_class(event.size.height < _LOW, "-low")
        self.set_class(event.size.height >= _HIGH, "-high")

    # --- what is shown

    def show_again(self) -> None:
        """Put what is known in order; away from the thread that draws, since it may be thousands of things."""
        kept, whole = self.kept, self.done
        self._now, self._asked_at = time.time(), time.monotonic()
        wanted = Wanted(
            kept.items,
            kept.places,
            kept.place,
            kept.filter,
            kept.order,
            frozenset(kept.opened),
            frozenset(kept.selected),
            self._now,
        )

        def order(stopped: Callable[[], bool]) -> None:
            began = time.monotonic()
            view = self._viewer.view(wanted)
            self._cost_s = time.monotonic() - began
            if not stopped():
                self.post_message(self.Viewed(view, whole=whole))

        if self._lane is not None:
            self._lane.ask(order)

    def scanned(self) -> None:
        """More was found. Where putting it in order takes long, that is done less often than more is found."""
        if self.done or time.monotonic() - self._asked_at >= _REST * self._cost_s:
            self.show_again()

    def on_cache_list_viewed(self, message: Viewed) -> None:
        """Draw it; the cursor stays on its thing."""
        before, empty = self.table.row, not self.view.lines
        trash = self.view.trash
        self.view = view = message.view
        place = None
        # Who is at the top while the disk is looked at sees the largest things come in.
        if before is not None and (self.whole or self.table.cursor):
            paths = [line.item.path for line in view.lines]
            path = before.item.path
            place = paths.index(path) if path in paths else None
        self.table.show(view.lines, cursor=place)
        self.whole = message.whole
        if view.places != self._places.rows:
            names = [one.name for one in view.places]
            here = names.index(self.kept.place) if self.kept.place in names else 0
            self._places.show(view.places, cursor=here)
        self._say_all()
        if (empty, bool(trash)) != (not view.lines, bool(view.trash)):
            self.refresh_bindings()

    def _cells(self, line: Line) -> Sequence[Cell | str]:
        mark = mark_of(line.item, self.kept.selected, self.view.partly)
        return thing_cells(line, mark, self._now)

    def _say_all(self) -> None:
        kept = self.kept
        chosen, total = words.title_words(self.view, done=self.whole)
        title = Content.assemble(
            Content.styled(self.TITLE or "", "bold $primary"),
            "  ",
            Content.styled(f"{chosen} · " if chosen else "", "bold $text-accent"),
            Content.styled(total, "$text-muted"),
        )
        self._draw("#over-title", title)
        disks = words.disk_words(kept.disks, kept.roots, self.view.budgeted, kept.budget)
        self._draw("#disks", Content(disks))
        filtered = bool(kept.filter.terms)
        count = words.filter_words(self.view, kept.order, self._error, filtered=filtered)
        self._draw("#count", count)
        self.say_more()

    def say_more(self) -> None:
        """The highlighted thing or place in full."""
        self._draw("#told", Content("\n").join(self._more()))

    def _draw(self, where: str, text: Content) -> None:
        # Each has a height of its own: a text that changes with every key moves nothing.
        self.query_one(where, Static).update(text, layout=False)

    def _more(self) -> list[Content]:
        kept, line = self.kept, self.table.row
        if self._places.has_focus and (place := self._places.row) is not None:
            inside = [
                one
                for one in kept.problems
                if place.name == EVERYTHING or self._within(one.path, place.name)
            ]
            return words.place_lines(place.name, place.where, inside)
        if line is None:
            return [
                Content(words.NO_MATCH if self.view.things else words.EMPTY if self.done else "")
            ]
        item = line.item
        above = kept.items.get(item.parent) if item.parent is not None else None
        return words.thing_lines(item, kept.reasons.get(item.path, ""), above)

    def _within(self, path: str, place: str) -> bool:
        roots = [root for root, name in self.kept.roots.items() if name == place]
        return any(path == root or path.startswith(f"{root}/") for root in roots)

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        """Another place shows its things; another thing says what it is."""
        place = self._places.row
        if message.table is self._places and place is not None and place.name != self.kept.place:
            self.kept.place = place.name
            self.show_again()
        self.say_more()

    # --- filter and order

    def action_find(self) -> None:
        """Type a filter."""
        self.set_focus(self.query_one(FilterLine))

    def action_back(self) -> None:
        """Empty the filter; where there is none, back to the step."""
        line = self.query_one(FilterLine)
        if line.value:
            line.value = ""
        else:
            self.action_close()

    def action_leave_line(self) -> None:
        """From the filter to the things."""
        self.set_focus(self.table)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow as one types; what is half typed keeps what was found before."""
        self._parse(event.value)
        self.show_again()

    def _parse(self, text: str) -> None:
        self.kept.text = text
        try:
            self.kept.filter = parse_filter(text)
            self._error = None
        except QuantuiError as error:
            self._error = error

    def action_order(self) -> None:
        """The next order."""
        self.kept.order = next_order(self.kept.order)
        self.show_again()
