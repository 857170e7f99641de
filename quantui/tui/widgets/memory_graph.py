"""Memory in use over time, against the whole card: a fixed axis, eighth blocks, the predicted line, phases."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from quantui.domain.formatting import format_seconds
from quantui.tui.memory_history import HOST_RAM, RAM
from quantui.tui.memory_plot import Caption, Picture, ceiling_of, drawn, plot_width, span_for

if TYPE_CHECKING:
    from rich.style import Style

    from quantui.tui.memory_history import MemoryHistory, Series
    from quantui.tui.memory_plot import Kind, Row

_NAMES = {RAM: "RAM of the run", HOST_RAM: HOST_RAM}
_EVERY_S = 0.1
_KINDS: tuple[Kind, ...] = ("space", "axis", "bar", "line", "over", "peak", "mark", "caption")


class MemoryGraph(Widget, can_focus=False):
    """Shows one series of a :class:`MemoryHistory` and follows it by itself, ten times a second while it grows.

    Time that goes on is drawn with the newest sample at the right and the whole history in sight; each column
    stands for a fixed span, so that what is drawn stays as it is and moves left.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"memory-graph--{kind}" for kind in _KINDS}
    DEFAULT_CSS = """
    MemoryGraph {
        height: 8;
        & > .memory-graph--axis { color: $text-muted; }
        & > .memory-graph--bar { color: $primary; }
        & > .memory-graph--line { color: $text-warning; }
        & > .memory-graph--over { color: $background; background: $primary; }
        & > .memory-graph--peak { color: $text-accent; text-style: bold; }
        & > .memory-graph--mark { color: $text-muted; }
    }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history: MemoryHistory | None = None
        self._key: str | int = RAM
        self._total: int | None = None
        self._predicted: int | None = None
        self._begin: float | None = None
        self._end: float | None = None
        self._lines: tuple[Row, ...] = ()
        self._strips: list[Strip] = []
        self._drawn_of: object = None
        self._styles: dict[str, Style] = {}
        self._moving = MovingColumns()

    def show(
        self,
        history: MemoryHistory,
        key: str | int,
        *,
        total: int | None,
        predicted: int | None = None,
        begin: float | None = None,
        end: float | None = None,
    ) -> None:
        """Show the series ``key``: of all time, or since ``begin``, or from ``begin`` to ``end`` over the whole width.

        ``total`` and ``predicted`` in bytes; a total of None is taken from the samples, and when these do not know
        it either the graph says so. Times are seconds since the epoch. Costs nothing where nothing changed.
        """
        if history is not self._history or key != self._key:
            self._moving = MovingColumns()
        self._history, self._key = history, key
        self._total, self._predicted = total, predicted
        self._begin, self._end = begin, end
        self.tick()

    def on_mount(self) -> None:
        """Follow the history."""
        self.set_interval(_EVERY_S, self.tick)

    def notify_style_update(self) -> None:
        """Another theme: every line is drawn anew."""
        super().notify_style_update()
        self._styles.clear()
        self._drawn_of = None

    def tick(self) -> None:
        """Draw again the lines that changed; none when there is no new sample."""
        width, height = self.size
        if self._history is None or not width or not height or not self.is_mounted:
            return
        series = self._history.series(self._key)
        state = (
            *(width, height, id(self._history), self._key, self._total, self._predicted),
            *(self._begin, self._end, series.end, series.total, series.lost_at),
            len(self._history.marks),
        )
        if state == self._drawn_of:
            return
        self._drawn_of = state
        before, self._lines = self._lines, drawn(self._picture(series, width), width, height)
        if len(before) != len(self._lines) or not self._styles:
            self._strips = [self._strip(line) for line in self._lines]
            self.refresh()
            return
        changed = [y for y, line in enumerate(self._lines) if line != before[y]]
        if changed:
            for y in changed:
                self._strips[y] = self._strip(self._lines[y])
            top, across = self.gutter.top, self.outer_size.width
            self.refresh(*(Region(0, y + top, across, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        """One line, as it was last drawn."""
        self.tick()
        if y < len(self._strips):
            return self._strips[y]
        # With NO_COLOR Textual takes every segment's style apart: it may not be missing.
        return Strip.blank(self.size.width, self.rich_style)

    def _strip(self, line: Row) -> Strip:
        styles = self._styles
        if not styles:
            for kind in _KINDS:
                styles[kind] = self.get_component_rich_style(f"memory-graph--{kind}")
        return Strip([Segment(text, styles[kind]) for text, kind in line])

    def _picture(self, series: Series, width: int) -> Picture:
        total = self._total if self._total is not None else series.total
        caption = Caption(
            name=f"GPU {self._key}"
            if isinstance(self._key, int)
            else _NAMES.get(self._key, self._key),
            ceiling=ceiling_of(total, max(series.peak, self._predicted or 0)),
            now=series.now,
            peak=series.peak if len(series) else None,
            total=total,
            predicted=self._predicted,
            lost=""
            if series.lost_at is None
            else f"{datetime.fromtimestamp(series.lost_at):%H:%M:%S}",
        )
        room = plot_width(width, caption.ceiling)
        first, newest = series.begin, series.end
        if first is None or newest is None:
            return Picture([None] * room, caption)
        begin = first if self._begin is None else self._begin
        if self._end is not None:
            span = max(self._end - begin, 1e-3) / room
            columns = series.columns(begin, self._end, room)
            left, right = "0 s", format_seconds(self._end - begin)
        else:
            span = span_for(max(newest - begin, 0.0), room)
            columns, begin = self._moving.of(series, newest, span, room)
            left, right = f"-{format_seconds(span * room)}", "now"
        return Picture(columns, caption, self._marks(begin, span, room), left, right)

    def _marks(self, begin: float, span: float, room: int) -> tuple[tuple[int, str], ...]:
        history = self._history
        assert history is not None
        places = ((int((mark.at - begin) // span), mark.label) for mark in tuple(history.marks))
        return tuple((column, label) for column, label in places if 0 <= column < room)


class MovingColumns:
    """The columns of time that goes on: those that are complete are kept, the rest is looked up."""

    def __init__(self) -> None:
        self._columns: list[float | None] = []
        self._last = 0
        self._span = 0.0

    def of(
        self, series: Series, newest: float, span: float, width: int
    ) -> tuple[list[float | None], float]:
        """``width`` columns of ``span`` seconds, the last one with the newest sample; and when the first begins."""
        last = int(newest // span)
        fresh = width
        if span == self._span and len(self._columns) == width and last >= self._last:
            fresh = min(last - self._last + 1, width)
        found = series.columns((last - fresh + 1) * span, (last + 1) * span, fresh)
        kept = self._columns[-(width - fresh + 1) : -1] if fresh < width else []
        self._columns = [*kept, *found]
        self._last, self._span = last, span
        return self._columns, (last - width + 1) * span
