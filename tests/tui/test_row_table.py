"""The table of any length: what is seen of it, where its cursor is, and how texts are fitted."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.app import App

from quantui.tui.widgets.row_table import Cell, Column, RowTable, fitted


class Table(App):
    """Numbers and their names; tells which rows were highlighted."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        self.told = []

    def compose(self):
        columns = (
            Column("number", 8, right=True),
            Column("name", 10, grows=True),
            Column("more", 6, least=60),
        )
        yield RowTable(columns, lambda n: (str(n), Cell(f"row {n}", "good"), "more"))

    def on_mount(self):
        self.query_one(RowTable).show(range(self.count))

    def on_row_table_highlighted(self, message):
        self.told.append(message.table.row)


def lines(pilot):
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


async def test_the_header_stays_while_rows_scroll():
    async with Table(1000).run_test(size=(40, 10)) as pilot:
        await pilot.press("end")
        await pilot.pause()
        shown = lines(pilot)
        assert shown[0].split() == ["number", "name"]
        assert "row 999" in shown[-1]
        assert pilot.app.told[-1] == 999


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        (["down", "j", "up"], 1),
        (["up"], 0),
        (["pagedown"], 8),
        (["pagedown", "pagedown", "pageup"], 8),
        (["end", "down"], 999),
        (["end", "home"], 0),
    ],
)
async def test_the_cursor_moves_and_stays_on_a_row_that_is_seen(keys, row):
    async with Table(1000).run_test(size=(40, 10)) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        assert pilot.app.query_one(RowTable).row == row
        assert any(f"row {row}" in line for line in lines(pilot))


async def test_fewer_rows_take_the_cursor_along():
    async with Table(1000).run_test(size=(40, 10)) as pilot:
        await pilot.press("end")
        table = pilot.app.query_one(RowTable)
        table.show(range(3))
        assert table.row == 2
        table.show(())
        assert table.row is None


async def test_a_column_is_left_out_where_the_table_is_too_narrow_for_it():
    async with Table(3).run_test(size=(40, 10)) as pilot:
        assert "more" not in lines(pilot)[0]
        await pilot.resize_terminal(80, 10)
        await pilot.pause()
        assert "more" in lines(pilot)[0]


@pytest.mark.parametrize(
    "text", ["", "short", "a text that is too long", "名前が長すぎる", "e\u0301" * 9]
)
@pytest.mark.parametrize("width", [0, 1, 2, 5, 10])
def test_a_text_is_fitted_into_exactly_the_cells_it_gets(text, width):
    assert cell_len(fitted(text, width)) == width
    assert cell_len(fitted(text, width, right=True)) == width


def test_what_is_cut_off_ends_with_an_ellipsis():
    assert fitted("abcdef", 4) == "abc…"
    assert fitted("abc", 4, right=True) == " abc"
