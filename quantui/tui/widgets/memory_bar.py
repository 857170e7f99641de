"""The memory of one device as a stacked bar: what serving takes, against what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.geometry import Size

    from quantui.domain.fitting.fit_facts import Fit

FREE, OVER = "·", "╳"
_KINDS = {
    "O": ("other processes", "▚", "$text-error"),
    "R": ("runtime", "▞", "$accent"),
    "W": ("weights", "█", "$primary"),
    "L": ("LoRA", "▙", "$accent"),
    "A": ("activations", "▒", "$warning"),
    "G": ("graphs", "▤", "$secondary"),
    "K": ("KV cache, asked", "▓", "$success"),
    "k": ("KV cache, spare", "░", "$success"),
    "F": ("free", FREE, "$text-muted"),
}
"""Letter to name, glyph and colour. The letter stands in the bar too, so that no part is told by its colour alone."""


@dataclass(frozen=True)
class Part:
    """One part of the bar; ``letter`` is its key in the legend."""

    letter: str
    bytes: int

    @property
    def name(self) -> str:
        """What it is, in words."""
        return _KINDS[self.letter][0]

    @property
    def glyph(self) -> str:
        """What it is drawn with."""
        return _KINDS[self.letter][1]

    @property
    def style(self) -> str:
        """What it is coloured with."""
        return _KINDS[self.letter][2]


@dataclass(frozen=True)
class Stack:
    """The parts in their order, the last two the spare cache and what stays free; bytes of one device.

    ``limit``: where what may be taken ends. ``over``: how much of what is needed lies beyond it. ``total`` is None
    where the device's memory is not known.
    """

    parts: tuple[Part, ...]
    total: int | None
    limit: int | None
    over: int


def stack_of(result: Fit, total: int | None) -> Stack:
    """The parts of a fit on a device of ``total`` bytes.

    vLLM gives the whole rest of its budget to the cache: it is parted into what the asked requests take and the spare.
    """
    asked = result.kv_cache.bytes if result.asked_bytes is None else result.asked_bytes
    needed = [
        Part("O", result.others.bytes),
        Part("R", result.context.bytes),
        Part("W", result.weights.bytes),
        Part("L", result.lora.bytes),
        Part("A", result.transient.bytes),
        Part("G", result.graphs.bytes),
        Part("K", asked),
    ]
    taken = sum(part.bytes for part in needed)
    spare = max(0, result.kv_cache.bytes - asked)
    limit = None
    if result.budget_bytes is not None:
        outside = 0 if result.graphs_in_budget else result.graphs.bytes
        limit = result.others.bytes + result.budget_bytes + outside
        spare = min(spare, max(0, limit - taken))
    free = 0 if total is None else max(0, total - taken - spare)
    over = 0 if limit is None else max(0, taken - limit)
    return Stack((*needed, Part("k", spare), Part("F", free)), total, limit, over)


def device_total(result: Fit, ram_total: int | None) -> int | None:
    """Bytes of the device that the fit is for: of its budget and share, or the RAM on the CPU."""
    if result.utilization is None:
        return ram_total
    if result.budget_bytes is None or not result.utilization:
        return None
    return round(result.budget_bytes / result.utilization)


def cells(stack: Stack, width: int) -> list[str]:
    """The letter of each of ``width`` cells, :data:`OVER` for what does not fit; the scale ends at the device's total,
    or where what is needed ends.
    """
    taken = sum(part.bytes for part in stack.parts if part.letter not in "kF")
    scale = max(stack.total or 0, taken)
    if not scale or width <= 0:
        return []
    found: list[str] = []
    end = 0
    for part in stack.parts:
        end += part.bytes
        found += part.letter * (round(width * end / scale) - len(found))
    if stack.over and stack.limit is not None:
        edge = min(round(width * stack.limit / scale), taken_cells(stack, width, scale) - 1)
        for place in range(max(0, edge), taken_cells(stack, width, scale)):
            found[place] = OVER
    return found[:width]


def taken_cells(stack: Stack, width: int, scale: int) -> int:
    """Cells of what is needed."""
    taken = sum(part.bytes for part in stack.parts if part.letter not in "kF")
    return min(width, max(1, round(width * taken / scale)))


def bar_content(stack: Stack, width: int, *, letters: bool = True) -> Content:
    """The bar in one line; with ``letters`` each part that has room shows its own."""
    drawn = cells(stack, width)
    parts: list[Content] = []
    place = 0
    while place < len(drawn):
        letter = drawn[place]
        run = 1
        while place + run < len(drawn) and drawn[place + run] == letter:
            run += 1
        parts.append(_segment(letter, run, letters=letters))
        place += run
    return Content("").join(parts)


def _segment(letter: str, run: int, *, letters: bool) -> Content:
    if letter == OVER:
        return Content.styled(OVER * run, "bold $text-error")
    _, glyph, style = _KINDS[letter]
    if not letters or letter == "F":
        return Content.styled(glyph * run, style)
    left = (run - 1) // 2
    return Content.assemble(
        Content.styled(glyph * left, style),
        Content.styled(letter, f"bold reverse {style}"),
        Content.styled(glyph * (run - 1 - left), style),
    )


def legend(stack: Stack) -> list[Content]:
    """A piece for each part there is, with its size; what does not fit comes first."""
    found: list[Content] = []
    if stack.over:
        text = f"{OVER} {format_bytes(stack.over)} too much"
        found.append(Content.styled(text, "bold $text-error"))
    for part in stack.parts:
        if part.bytes or part.letter in "WK":
            piece = Content.assemble(
                Content.styled(part.letter, f"bold {part.style}"),
                f" {part.name} {format_bytes(part.bytes)}",
            )
            found.append(piece)
    return found


def wrapped(pieces: Sequence[Content], width: int, gap: str = "  ") -> list[Content]:
    """The pieces in lines of at most ``width`` cells; none is broken."""
    lines: list[list[Content]] = [[]]
    used = 0
    for piece in pieces:
        needed = piece.cell_length + (len(gap) if lines[-1] else 0)
        if lines[-1] and used + needed > width:
            lines.append([])
            used, needed = 0, piece.cell_length
        lines[-1].append(piece)
        used += needed
    return [Content(gap).join(line) for line in lines if line]


class MemoryBar(Widget, can_focus=False):
    """The bar with its title and legend, for whatever width there is."""

    DEFAULT_CSS = """
    MemoryBar { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._result: Fit | None = None
        self._ram: int | None = None
        self._copies = 1
        self._empty = ""

    def show(
        self, result: Fit | None, *, ram_total: int | None = None, copies: int = 1, why: str = ""
    ) -> None:
        """Draw another fit; ``copies``: how many such devices share the model. None: ``why`` there is no bar."""
        self._result, self._ram, self._copies, self._empty = result, ram_total, copies, why
        height = self._height(self.content_size.width)
        self.refresh(layout=height != self.content_size.height)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the legend needs; at least four, so that what is below moves seldom."""
        del container, viewport
        return self._height(width)

    def _height(self, width: int) -> int:
        return max(4, self._content(width).plain.count("\n") + 1)

    def render(self) -> Content:
        """Title, bar and legend."""
        return self._content(self.content_size.width)

    def _content(self, width: int) -> Content:
        if self._result is None:
            return Content.styled(one_line(self._empty), "$text-muted")
        width = max(20, width)
        stack = stack_of(self._result, device_total(self._result, self._ram))
        lines = [self._title(stack), bar_content(stack, width), *wrapped(legend(stack), width)]
        return Content("\n").join(lines)

    def _title(self, stack: Stack) -> Content:
        result = self._result
        assert result is not None
        each = f"each of {self._copies} GPUs, " if self._copies > 1 else ""
        name = one_line(result.device)
        text = f"{each}{name}: {format_bytes(stack.total)}"
        if result.budget_bytes is None:
            return Content.assemble(text, Content.styled(", what may be taken is unknown", "dim"))
        share = "" if result.utilization is None else f" ({result.utilization:.2f})"
        who = "planned with" if result.utilization is None else "vLLM may take"
        return Content.assemble(
            Content.styled(text, "bold"), f", {who} {format_bytes(result.budget_bytes)}{share}"
        )
