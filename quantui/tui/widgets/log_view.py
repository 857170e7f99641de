"""A log that grows: wrapped lines without markup, followed at its end until the person scrolls up."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual import events

KEPT_LINES = 10_000
_LONGEST = 4_000
"""Characters of a line that are shown: a model's repr may be one line of megabytes."""


def wrapped(line: str, width: int) -> list[tuple[int, int]]:
    """Begin and end, in characters, of each row of ``width`` columns that ``line`` takes."""
    if line.isascii():
        return [(at, min(at + width, len(line))) for at in range(0, len(line), width)] or [(0, 0)]
    rows: list[tuple[int, int]] = []
    begin = used = 0
    for at, character in enumerate(line):
        columns = cell_len(character)
        if used + columns > width and at > begin:
            rows.append((begin, at))
            begin, used = at, 0
        used += columns
    return [*rows, (begin, len(line))]


class LogView(ScrollView, can_focus=True):
    """The last 10,000 lines. Scrolling up pauses the following; ``end`` or ``f`` takes it up again."""

    class Changed(Message):
        """Following, the number of lines, or what is searched for changed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--found", "log--here"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end,f", "follow", "follow", key_display="f"),
        Binding("n", "found(1)", "next"),
        Binding("N,shift+n", "found(-1)", "previous", show=False),
    ]
    DEFAULT_CSS = """
    LogView { height: 1fr; overflow-x: hidden; background: $surface; }
    LogView .log--found { text-style: reverse; }
    LogView .log--here { background: $warning; color: $background; text-style: bold; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[str] = []
        self.dropped = 0
        self.following = True
        self.unseen = 0
        self.query_text = ""
        self.here: int | None = None
        self._rows: list[tuple[int, int, int]] = []
        self._width = 0

    # --- lines

    def extend(self, lines: Sequence[str]) -> None:
        """Append lines of untrusted text."""
        begin = len(self.lines)
        self.lines += [sanitize(line[:_LONGEST]) for line in lines]
        self._wrap(begin)
        over = len(self.lines) - KEPT_LINES
        if over > 0:
            self._drop(over)
        self._fit()
        if not self.following:
            self.unseen += len(lines)
        self.post_message(self.Changed())

    def clear(self) -> None:
        """Begin with another log."""
        self.lines, self._rows = [], []
        self.dropped = self.unseen = 0
        self.following, self.here = True, None
        self._fit()
        self.post_message(self.Changed())

    def _wrap(self, begin: int) -> None:
        width = self._width
        if not width:
            return
        for number in range(begin, len(self.lines)):
            self._rows += [(number, *row) for row in wrapped(self.lines[number], width)]

    def _drop(self, count: int) -> None:
        """Forget the oldest lines; what is looked at stays where it is."""
        rows = self._row_of(count)
        del self.lines[:count]
        self._rows = [(line - count, begin, end) for line, begin, end in self._rows[rows:]]
        self.dropped += count
        self.here = None if self.here is None or self.here < count else self.here - count
        if not self.following:
            self._go(int(self.scroll_y) - rows)

    def _row_of(self, line: int) -> int:
        """The first row of a line."""
        return bisect_left(self._rows, (line, 0, 0))

    def _fit(self) -> None:
        self.virtual_size = Size(self._width, len(self._rows))
        if self.following:
            self._go(self._last())
        self.refresh()

    def _go(self, row: int) -> None:
        # By force: whether there is anything to scroll is known to the widget only after it was drawn.
        self.scroll_to(y=max(0, row), animate=False, force=True)

    def _last(self) -> int:
        return max(0, len(self._rows) - self.scrollable_content_region.height)

    def on_resize(self, event: events.Resize) -> None:
        """Wrap anew; the line that was on top stays there."""
        del event
        # The scrollbar's column is always left free: rows must not change when it comes.
        width = max(1, self.size.width - self.styles.scrollbar_size_vertical)
        if width != self._width:
            top = self._rows[int(self.scroll_y)][0] if self._rows[int(self.scroll_y) :] else 0
            self._width, self._rows = width, []
            self._wrap(0)
            if not self.following:
                self.virtual_size = Size(width, len(self._rows))
                self._go(self._row_of(top))
        self._fit()

    # --- following

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Scrolling up pauses, reaching the end follows again."""
        super().watch_scroll_y(old_value, new_value)
        following = new_value >= self._last()
        if new_value < old_value and not following and self.following:
            self.following = False
            self.post_message(self.Changed())
        elif following and not self.following:
            self._follow()

    def action_follow(self) -> None:
        """Go to the end and stay there."""
        self._follow()
        self._go(self._last())

    def _follow(self) -> None:
        self.following, self.unseen = True, 0
        self.post_message(self.Changed())

    # --- searching

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is a next place once something was searched for."""
        if action == "found":
            return bool(self.query_text)
        return super().check_action(action, parameters)

    def search(self, text: str) -> int:
        """Mark ``text`` wherever it stands, in either case, and go to its last place; gives the number of lines."""
        self.query_text = text.lower()
        self.here = None
        found = self._found()
        if found:
            self._show(found[-1])
        self.refresh()
        self.refresh_bindings()
        self.post_message(self.Changed())
        return len(found)

    def action_found(self, by: int) -> None:
        """Go to the next line that holds what is searched for, or the one before, around the ends."""
        found = self._found()
        if not found:
            return
        if self.here is None:
            self._show(found[-1])
            return
        place = bisect_left(found, self.here)
        at = place + by if by < 0 or found[place : place + 1] == [self.here] else place
        self._show(found[at % len(found)])

    def _found(self) -> list[int]:
        wanted = self.query_text
        return (
            [at for at, line in enumerate(self.lines) if wanted in line.lower()] if wanted else []
        )

    def _show(self, line: int) -> None:
        self.here = line
        row = self._row_of(line)
        if row < self._last():
            self.following = False
        height = self.scrollable_content_region.height
        self._go(row - height // 2)
        self.refresh()
        self.post_message(self.Changed())

    # --- drawing

    def render_line(self, y: int) -> Strip:
        """One row, what is searched for marked."""
        row = int(self.scroll_y) + y
        style = self.rich_style
        width = self.size.width
        if row >= len(self._rows):
            return Strip.blank(width, style)
        line, begin, end = self._rows[row]
        text = self.lines[line][begin:end]
        return Strip(self._segments(text, line, style)).adjust_cell_length(width, style)

    def _segments(self, text: str, line: int, style: Style) -> list[Segment]:
        wanted, low = self.query_text, text.lower()
        if not wanted or wanted not in low or len(low) != len(text):
            return [Segment(text, style)]
        mark = self.get_component_rich_style("log--here" if line == self.here else "log--found")
        parts: list[Segment] = []
        at = 0
        while (found := low.find(wanted, at)) >= 0:
            parts.append(Segment(text[at:found], style))
            parts.append(Segment(text[found : found + len(wanted)], style + mark))
            at = found + len(wanted)
        return [*parts, Segment(text[at:], style)]
