"""A series of memory use as rows of characters. Pure: no widget, no clock, no colour; a kind names each run's style.

The axis goes from 0 to the total, whatever the data are, in eighths of a row. A column's height is rounded up, so that
it never shows less than the highest use in its span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from quantui.domain.terminal_text import one_line
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["space", "axis", "bar", "line", "over", "peak", "mark", "caption"]
"""What a run of characters is. "line" is the prediction on an empty cell, "over" on a full one."""

Row = tuple[tuple[str, Kind], ...]

BLOCKS = " ▁▂▃▄▅▆▇█"
LINE = "╌"
PEAK = "▼"
_TICK = "▏"

SPANS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds a column may stand for while time goes on: the scale changes seldom, and columns stay where they are."""


@dataclass(frozen=True)
class Caption:
    """What the graph says in words, bytes. ``total`` None: unknown; ``ceiling``: what it is drawn against."""

    name: str
    ceiling: float
    now: int | None = None
    peak: int | None = None
    total: int | None = None
    predicted: int | None = None
    lost: str = ""
    """Since when the device does not answer; "" while it does."""


@dataclass(frozen=True)
class Picture:
    """What is drawn: a use a column (None: nothing known), the ceiling, the prediction, phases by column."""

    columns: Sequence[float | None]
    caption: Caption
    marks: tuple[tuple[int, str], ...] = ()
    left: str = ""
    right: str = ""


def span_for(length_s: float, width: int) -> float:
    """The shortest of :data:`SPANS` with which ``length_s`` seconds fit into ``width`` columns."""
    room = max(width - 1, 1)
    for span in SPANS:
        if length_s <= room * span:
            return span
    return SPANS[-1] * math.ceil(length_s / (room * SPANS[-1]))


def ceiling_of(total: int | None, highest: int) -> float:
    """The top of the axis: the total; without one the next power of two GiB above the highest use."""
    if total:
        return float(total)
    top = GIB / 8
    while top < highest:
        top *= 2
    return float(top)


def eighths(used: float, ceiling: float, rows: int) -> int:
    """The height of a column in eighths of a row, rounded up, at most all of them."""
    return min(math.ceil(max(used, 0.0) / ceiling * rows * 8), rows * 8)


def plot_width(width: int, ceiling: float) -> int:
    """Columns left of ``width`` for the plot, beside the labels of the axis."""
    return max(width - _label_width(ceiling) - 1, 1)


def drawn(picture: Picture, width: int, height: int) -> tuple[Row, ...]:
    """The graph in ``height`` rows of ``width`` characters: caption, plot, and where there is room phases and time."""
    told = picture.caption
    feet = _feet(picture, width, height)
    rows = max(height - 1 - len(feet), 1)
    heights = tuple(
        0 if one is None else eighths(one, told.ceiling, rows) for one in picture.columns
    )
    predicted = _row_of(told.predicted, told.ceiling, rows)
    peak = _place_of_peak(picture, heights, rows)
    caption: Row = ((f"{caption_text(told, width):<{width}}", "caption"),)
    return (caption, *_plot(heights, rows, told.ceiling, predicted, peak), *feet)[:height]


@lru_cache(maxsize=8)
def _plot(
    heights: tuple[int, ...],
    rows: int,
    ceiling: float,
    predicted: int | None,
    peak: tuple[int, int],
) -> tuple[Row, ...]:
    """The rows between caption and feet; mostly the same as a tenth of a second before."""
    labels, wide = _labels(ceiling, rows), _label_width(ceiling)
    lines: list[Row] = []
    for row in range(rows):
        label = f"{labels.get(row, ''):>{wide}}{'┤' if row in labels else '│'}"
        cells = _cells(heights, rows - 1 - row, row == predicted)
        if row == peak[0]:
            cells[peak[1]] = (PEAK, "peak")
        lines.append(((label, "axis"), *_runs(cells)))
    return tuple(lines)


def caption_text(told: Caption, width: int) -> str:
    """The longest way to say it that fits into ``width`` characters."""
    forms = list(_forms(told))
    return next((form for form in forms if len(form) <= width), forms[-1][:width])


def _forms(told: Caption) -> Iterator[str]:
    """Ways to say the same, the longest first; figures in GiB."""
    now = "unknown" if told.now is None else _figure(told.now)
    if told.lost:
        now = f"lost since {told.lost}"
    predicted = "" if told.predicted is None else _figure(told.predicted)
    over = told.predicted is not None and told.total is not None and told.predicted > told.total
    if told.peak is None:
        waiting = f"{told.name}: no sample yet"
        yield waiting if told.total is None else f"{waiting}, total {_figure(told.total)} GiB"
        yield "no sample yet"
        return
    peak = _figure(told.peak)
    if told.total is None:
        against = f"total unknown, drawn against {_figure(told.ceiling)} GiB"
        short = f"of unknown, top {_figure(told.ceiling)}"
    else:
        against = f"total {_figure(told.total)} GiB"
        short = f"of {_figure(told.total)} GiB"
    parts = [f"now {now} GiB" if not told.lost else now, f"{PEAK} peak {peak} GiB"]
    parts += (
        [f"{LINE} predicted {predicted} GiB{', over the total' if over else ''}"]
        if predicted
        else []
    )
    yield f"{told.name}: {', '.join([*parts, against])}"
    yield ", ".join(part.replace(" GiB", "") for part in parts) + f", {against}"
    if not told.lost:
        yield f"now {now} {PEAK}{peak}{f' {LINE}{predicted}' if predicted else ''} {short}"
        yield f"now {now} {short}"
        yield f"{now}/{short.removeprefix('of ')}"
    yield now


def _figure(count: float) -> str:
    return f"{count / GIB:.1f}" if count >= GIB else f"{count / GIB:.2f}"


def _label_width(ceiling: float) -> int:
    return len(_figure(ceiling))


def _labels(ceiling: float, rows: int) -> dict[int, str]:
    """Row to its label in GiB: the total at the top, nothing at the bottom, the half between them."""
    if rows < 2:
        return {0: _figure(ceiling)}
    labels = {0: _figure(ceiling), rows - 1: "0"}
    if rows >= 5:
        labels[rows // 2] = _figure(ceiling / 2)
    return labels


def _row_of(used: int | None, ceiling: float, rows: int) -> int | None:
    """The row, from the top, in which a level lies; None when it is unknown or above the axis."""
    if used is None or used > ceiling or used < 0:
        return None
    return rows - 1 - max(math.ceil(used / ceiling * rows) - 1, 0)


def _place_of_peak(picture: Picture, heights: Sequence[int], rows: int) -> tuple[int, int]:
    """Row and column of the mark over the highest column; (-1, -1) where it has no room or was not drawn."""
    known = [one for one in picture.columns if one is not None]
    peak = picture.caption.peak
    if not known or not peak or max(known) < peak:
        return -1, -1
    column = next(place for place, one in enumerate(picture.columns) if one == max(known))
    row = rows - 1 - math.ceil(heights[column] / 8)
    return (row, column) if row >= 0 else (-1, -1)


def _cells(heights: Sequence[int], level: int, predicted: bool) -> list[tuple[str, Kind]]:
    """One row of the plot; ``level`` is its number from the bottom."""
    floor = level * 8
    full: tuple[str, Kind] = (LINE, "over") if predicted else (BLOCKS[8], "bar")
    empty: tuple[str, Kind] = (LINE, "line") if predicted else (BLOCKS[0], "space")
    return [
        empty
        if height <= floor
        else full
        if height >= floor + 8
        else (BLOCKS[height - floor], "bar")
        for height in heights
    ]


def _runs(cells: Sequence[tuple[str, Kind]]) -> Iterator[tuple[str, Kind]]:
    """Neighbours of the same kind as one run."""
    for kind, group in groupby(cells, key=itemgetter(1)):
        yield "".join(text for text, _ in group), kind


def _feet(picture: Picture, width: int, height: int) -> list[Row]:
    """The rows below the plot: phases where there are any, and the time, as far as the height allows."""
    before = " " * (_label_width(picture.caption.ceiling) + 1)
    room = width - len(before)
    feet: list[Row] = []
    if height >= 6 and picture.marks:
        feet.append(((before, "space"), (_phases(picture.marks, room), "mark")))
    if height >= 6 + 2 * len(feet) and room >= len(picture.left) + len(picture.right) + 1:
        between = " " * (room - len(picture.left) - len(picture.right))
        feet.append(((before, "space"), (f"{picture.left}{between}{picture.right}", "axis")))
    return feet


def _phases(marks: Sequence[tuple[int, str]], width: int) -> str:
    """Each phase's label at its column, shortened to the room until the next one; a tick where there is none."""
    line = [" "] * width
    for place, (column, label) in enumerate(marks):
        following = marks[place + 1][0] if place + 1 < len(marks) else width
        room = min(following, width) - column - 1
        if not 0 <= column < width:
            continue
        text = one_line(label)
        shown = text if len(text) <= room else text[: room - 1] + "…" if room >= 5 else ""
        line[column] = _TICK
        line[column + 1 : column + 1 + len(shown)] = shown
    return "".join(line)[:width]
