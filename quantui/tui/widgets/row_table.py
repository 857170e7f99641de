"""A table of any length: only the rows that are seen are drawn, so that a thousand cost what ten do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.style import Style
    from textual import events

_HEADER = 1
"""Lines that stay when the rows scroll."""
_GAP = 2
"""Columns of the screen between two columns of the table."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column:
    """``width`` is what it needs, in cells of the terminal; one with ``grows`` takes what is left over.

    ``least``: it is left out of a table that is narrower than this.
    """

    title: str
    width: int
    right: bool = False
    grows: bool = False
    least: int = 0


@dataclass(frozen=True)
class Cell:
    """A text and its tone, which says nothing alone: "", ``muted good bad warn strong bar``."""

    text: str
    tone: str = ""


class RowTable(ScrollView, Generic[Row], can_focus=True):
    """Rows of any kind; ``cells`` gives what each column shows of one. Texts are sanitized here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "row up", show=False),
        Binding("down,j", "move(1)", "row down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "end(0)", "first row", show=False),
        Binding("end", "end(1)", "last row", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row-table--header",
        "row-table--cursor",
        "row-table--blurred",
        "row-table--muted",
        "row-table--good",
        "row-table--bad",
        "row-table--warn",
        "row-table--strong",
        "row-table--bar",
    }
    DEFAULT_CSS = """
    RowTable {
        height: 1fr;
        background: $surface;
        overflow-x: hidden;
        .row-table--header { color: $text-muted; text-style: bold; }
        .row-table--cursor { background: $block-cursor-background; color: $block-cursor-foreground; }
        .row-table--blurred { background: $panel; }
        .row-table--muted { color: $text-muted; }
        .row-table--good { color: $text-success; }
        .row-table--bad { color: $text-error; }
        .row-table--warn { color: $text-warning; }
        .row-table--strong { text-style: bold; }
        .row-table--bar { color: $primary; }
    }
    """
    cursor = reactive(0)

    class Highlighted(Message):
        """Another row has the cursor."""

        def __init__(self, table: RowTable[Any]) -> None:
            self.table = table
            super().__init__()

        @property
        def control(self) -> RowTable[Any]:
            """Whose row it is."""
            return self.table

    def __init__(
        self,
        columns: Sequence[Column],
        cells: Callable[[Row], Sequence[Cell | str]],
        *,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._cells = cells
        self.rows: Sequence[Row] = ()

    def show(self, rows: Sequence[Row], *, cursor: int | None = None) -> None:
        """Show ``rows``; the cursor stays on its number unless one is given."""
        self.rows = rows
        self.virtual_size = Size(self.size.width, len(rows) + _HEADER)
        self.cursor = self._within(self.cursor if cursor is None else cursor)
        self._follow()
        self.refresh()
        self.post_message(self.Highlighted(self))

    @property
    def row(self) -> Row | None:
        """The row under the cursor; None of an empty table."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    def _within(self, place: int) -> int:
        return max(0, min(place, len(self.rows) - 1))

    def validate_cursor(self, place: int) -> int:
        """The cursor is always on a row."""
        return self._within(place)

    def watch_cursor(self, before: int, now: int) -> None:
        """Keep the cursor in sight, and tell."""
        top = round(self.scroll_y)
        self._follow()
        if top == round(self.scroll_y):
            # The other rows are as they were.
            for place in (before, now):
                self.refresh(Region(0, place - top + _HEADER, self.size.width, 1))
        else:
            self.refresh()
        self.post_message(self.Highlighted(self))

    def on_resize(self) -> None:
        """What was in sight stays there."""
        self.virtual_size = Size(self.size.width, len(self.rows) + _HEADER)
        self._follow()

    def on_focus(self) -> None:
        """The cursor of the table with the focus is the brighter one, and what it is on is told."""
        self.refresh()
        self.post_message(self.Highlighted(self))

    def on_blur(self) -> None:
        """The other way round."""
        self.refresh()

    def _follow(self) -> None:
        seen = max(1, self.size.height - _HEADER)
        top = round(self.scroll_y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True)
        elif self.cursor >= top + seen:
            self.scroll_to(y=self.cursor - seen + 1, animate=False, immediate=True)

    def action_move(self, rows: int) -> None:
        """Move the cursor by rows."""
        self.cursor += rows

    def action_page(self, pages: int) -> None:
        """Move it by what is seen at once."""
        self.cursor += pages * max(1, self.size.height - _HEADER - 1)

    def action_end(self, last: int) -> None:
        """Move it to the first row or the last."""
        self.cursor = len(self.rows) - 1 if last else 0

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor too."""
        place = round(self.scroll_y) + event.y - _HEADER
        if event.y >= _HEADER and place < len(self.rows):
            self.cursor = place

    # --- drawing

    def render_line(self, y: int) -> Strip:
        """The header, or the row that is seen in this line."""
        width = self.scrollable_content_region.width
        base = self.rich_style
        if y < _HEADER:
            header = base + self.get_component_rich_style("row-table--header", partial=True)
            return self._strip([Cell(column.title) for column in self._columns], width, header)
        place = round(self.scroll_y) + y - _HEADER
        if place >= len(self.rows):
            return Strip.blank(width, base)
        style, under = base, place == self.cursor
        if under:
            name = "row-table--cursor" if self.has_focus else "row-table--blurred"
            # Not the partial style: a colour that is chosen by its background needs to know that one.
            style = self.get_visual_style(name).rich_style
        cells = [
            cell if isinstance(cell, Cell) else Cell(cell) for cell in self._cells(self.rows[place])
        ]
        return self._strip(cells, width, style, plain=under and self.has_focus)

    def _strip(
        self, cells: Sequence[Cell], width: int, style: Style, *, plain: bool = False
    ) -> Strip:
        segments: list[Segment] = []
        for place, (column, taken) in enumerate(self._layout(width)):
            if not taken:
                continue
            cell = cells[place]
            tone = style
            if cell.tone and not plain:
                tone += self.get_component_rich_style(f"row-table--{cell.tone}", partial=True)
            text = fitted(sanitize(cell.text), taken, right=column.right)
            segments.append(Segment(text, tone))
            segments.append(Segment(" " * _GAP, style))
        return Strip(segments).adjust_cell_length(width, style)

    def width_of(self, title: str) -> int:
        """Cells that a column has now; 0 where it is left out."""
        width = self.scrollable_content_region.width
        return next(taken for column, taken in self._layout(width) if column.title == title)

    def _layout(self, width: int) -> list[tuple[Column, int]]:
        """Each column with the cells it gets, 0 where there is no room for it."""
        there = [column for column in self._columns if width >= column.least]
        left = width - sum(column.width + _GAP for column in there)
        growing = [column for column in there if column.grows]
        more = max(0, left) // max(1, len(growing))
        return [
            (column, 0 if column not in there else column.width + (more if column.grows else 0))
            for column in self._columns
        ]


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in exactly ``width`` cells of a terminal; what is cut off ends with an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)
