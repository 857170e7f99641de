"""The memory graph as characters: a fixed axis, nothing shown lower than it was, everything said in words too."""

from __future__ import annotations

import random

import pytest

from quantui.domain.units import GIB
from quantui.tui.memory_plot import (
    BLOCKS,
    LINE,
    PEAK,
    Caption,
    Picture,
    caption_text,
    ceiling_of,
    drawn,
    eighths,
    plot_width,
    span_for,
)

TOTAL = 24 * GIB
SIZES = ((20, 4), (20, 7), (34, 5), (80, 6), (100, 12), (211, 40))


def picture(columns, **told) -> Picture:
    peak = max((int(one) for one in columns if one is not None), default=None)
    marks = told.pop("marks", ())
    caption = Caption(
        **{"name": "GPU 0", "ceiling": float(TOTAL), "now": peak, "peak": peak, "total": TOTAL}
        | told
    )
    return Picture(columns, caption, marks, "-50.0 s", "now")


def texts(one: Picture, width: int, height: int) -> list[str]:
    return ["".join(text for text, _ in line) for line in drawn(one, width, height)]


def heights(one: Picture, width: int, height: int) -> list[int]:
    """Eighths shown in each column, read back from the drawn characters."""
    wide = width - plot_width(width, one.caption.ceiling)
    shown = [0] * plot_width(width, one.caption.ceiling)
    for line in drawn(one, width, height)[1:]:
        cells = [(char, kind) for text, kind in line for char in text][wide:]
        for column, (char, kind) in enumerate(cells):
            if kind == "bar":
                shown[column] += BLOCKS.index(char)
            elif kind == "over":
                shown[column] += 8
    return shown


def plot_rows(one: Picture, width: int, height: int) -> int:
    return sum("┤" in line or "│" in line for line in texts(one, width, height)[1:])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_column_shows_the_peak_of_its_span_rounded_up_to_an_eighth_of_a_row(width, height):
    dice = random.Random(width * height)
    room = plot_width(width, TOTAL)
    columns = [dice.choice((None, dice.randrange(TOTAL), TOTAL, 0)) for _ in range(room)]
    one = picture(columns, predicted=dice.randrange(TOTAL))
    rows = plot_rows(one, width, height)
    for used, shown in zip(columns, heights(one, width, height), strict=True):
        assert shown == (0 if used is None else eighths(used, TOTAL, rows))
        assert shown * TOTAL / (rows * 8) >= (used or 0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_line_is_as_wide_as_the_graph_and_there_are_as_many_as_it_is_high(width, height):
    room = plot_width(width, TOTAL)
    one = picture([TOTAL / 3] * room, predicted=TOTAL // 2, marks=((2, "load"), (9, "compile")))
    lines = texts(one, width, height)
    assert len(lines) == height
    assert {len(line) for line in lines} == {width}


def test_what_is_above_the_total_is_drawn_as_the_total():
    one = picture([TOTAL * 3.0], total=TOTAL)
    assert heights(one, 30, 8)[0] == 8 * plot_rows(one, 30, 8)


def test_the_axis_goes_from_nothing_to_the_total_whatever_the_data_are():
    low = texts(picture([GIB / 10] * 60), 80, 9)
    high = texts(picture([TOTAL] * 60), 80, 9)
    labels = ["24.0", "", "", "12.0", "", "", "0", ""]
    assert [line[:4].strip() for line in low[1:]] == labels
    assert [line[:4].strip() for line in high[1:]] == labels


def test_the_prediction_is_a_dotted_row_where_nothing_is_drawn_and_in_full_cells():
    one = picture([0.0] * 30 + [TOTAL] * 30, predicted=TOTAL // 2)
    dotted = [line for line in texts(one, 70, 9) if LINE * 60 in line]
    assert len(dotted) == 1
    kinds = {kind for line in drawn(one, 70, 9)[1:] for text, kind in line if LINE in text}
    assert kinds == {"line", "over"}


def test_a_prediction_above_the_total_is_said_and_not_drawn():
    lines = texts(picture([GIB], predicted=30 * GIB), 90, 9)
    assert "predicted 30.0 GiB, over the total" in lines[0]
    assert not any(LINE in line for line in lines[1:])


def test_the_peak_is_marked_above_its_column():
    lines = texts(picture([GIB, 12 * GIB, GIB]), 40, 9)
    assert [line.index(PEAK) for line in lines[1:] if PEAK in line] == [
        40 - plot_width(40, TOTAL) + 1
    ]


def test_a_peak_that_is_out_of_sight_is_not_marked():
    lines = texts(picture([GIB, GIB], peak=12 * GIB), 40, 9)
    assert not any(PEAK in line for line in lines[1:])


def test_phases_stand_below_their_columns_and_are_shortened_to_their_room():
    one = picture(
        [GIB] * 60, marks=((0, "load weights"), (20, "compile"), (24, "capture graphs"), (59, "x"))
    )
    foot = texts(one, 65, 9)[-2][5:]
    assert foot.startswith("▏load weights ")
    assert foot[20] == "▏"
    assert foot[24:].startswith("▏capture graphs")


def test_a_phase_of_a_stranger_carries_no_escape_codes():
    one = picture([GIB] * 60, marks=((0, "\x1b[31mload\nmore"),))
    assert "▏load more" in texts(one, 65, 9)[-2]


@pytest.mark.parametrize("width", range(20, 130, 7))
def test_the_caption_fits_and_tells_what_is_in_use_and_the_total(width):
    told = Caption(
        "GPU 0", float(TOTAL), now=13 * GIB, peak=14 * GIB, total=TOTAL, predicted=15 * GIB
    )
    text = caption_text(told, width)
    assert len(text) <= width
    assert "13.0" in text
    assert "24.0" in text


def test_a_wide_caption_tells_everything():
    told = Caption(
        "GPU 0", float(TOTAL), now=13 * GIB, peak=14 * GIB, total=TOTAL, predicted=15 * GIB
    )
    assert caption_text(told, 100) == (
        f"GPU 0: now 13.0 GiB, {PEAK} peak 14.0 GiB, {LINE} predicted 15.0 GiB, total 24.0 GiB"
    )


def test_an_unknown_total_is_said_and_what_it_is_drawn_against():
    ceiling = ceiling_of(None, 13 * GIB)
    told = Caption("GPU 0", ceiling, now=13 * GIB, peak=13 * GIB)
    assert ceiling == 16 * GIB
    assert "total unknown, drawn against 16.0 GiB" in caption_text(told, 90)


def test_a_lost_device_is_said_in_words_at_any_width():
    told = Caption("GPU 0", float(TOTAL), peak=GIB, total=TOTAL, lost="12:03:04")
    for width in (20, 40, 80):
        assert "lost since 12:03:04" in caption_text(told, width)


def test_the_span_of_a_column_is_the_shortest_that_shows_everything():
    assert span_for(10.0, 90) == 0.5
    assert span_for(60.0, 90) == 1
    assert span_for(7 * 86400.0, 90) == 7200
    assert span_for(400 * 86400.0, 90) * 89 >= 400 * 86400.0
