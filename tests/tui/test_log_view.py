"""The log view: wrapped, sanitized, the last ten thousand lines, followed until one scrolls up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from textual.app import App

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text, wait_until

from quantui.runtime.log_tail import LogTail
from quantui.tui.widgets.log_view import KEPT_LINES, LogView, wrapped


class Shown(App[None]):
    def compose(self):
        yield LogView()


@pytest.fixture
async def log():
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        view = app.query_one(LogView)
        view.focus()
        await pilot.pause()
        yield view, pilot


def lines_of(pilot):
    """What is shown, without the scrollbar."""
    return [line[:38].rstrip() for line in screen_text(pilot).splitlines()]


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("", [""]),
        ("abcdefghij", ["abcde", "fghij"]),
        ("abcdefg", ["abcde", "fg"]),
        ("模型模型", ["模型", "模型"]),
        ("a模型b", ["a模型", "b"]),
    ],
)
def test_a_line_takes_as_many_rows_as_its_cells_need(line, rows):
    assert [line[begin:end] for begin, end in wrapped(line, 5)] == rows


async def test_the_end_is_in_sight_as_lines_come(log):
    view, pilot = log
    view.extend([f"line {number}" for number in range(100)])
    await wait_until(pilot, lambda: "line 99" in screen_text(pilot))


async def test_escape_sequences_and_markup_are_text(log):
    view, pilot = log
    view.extend(["\x1b[31mred\x1b]0;title\x07 [bold]bold[/bold]"])
    await wait_until(pilot, lambda: "red [bold]bold[/bold]" in screen_text(pilot))


async def test_what_is_looked_at_stays_while_lines_come_and_old_ones_go(log):
    view, pilot = log
    view.extend([f"line {number}" for number in range(KEPT_LINES)])
    await pilot.press("pageup", "pageup")
    await wait_until(pilot, lambda: not view.following)
    before = lines_of(pilot)
    view.extend([f"new {number}" for number in range(500)])
    await pilot.pause()
    assert len(view.lines) == KEPT_LINES
    assert view.dropped == 500
    assert view.unseen == 500
    assert lines_of(pilot) == before
    await pilot.press("f")
    await wait_until(pilot, lambda: "new 499" in screen_text(pilot))
    assert view.following


async def test_a_resize_keeps_the_line_on_top(log):
    view, pilot = log
    view.extend([f"line {number} " + "word " * 20 for number in range(100)])
    await pilot.press("home")
    await pilot.press("pagedown")
    top = view._rows[int(view.scroll_y)][0]
    await pilot.resize_terminal(70, 10)
    await pilot.pause()
    assert view._rows[int(view.scroll_y)][0] == top


async def test_searching_goes_from_place_to_place(log):
    view, pilot = log
    view.extend([f"line {number}{' ERROR' if number in (10, 50) else ''}" for number in range(100)])
    await wait_until(pilot, lambda: "line 99" in screen_text(pilot))
    assert view.search("error") == 2
    await wait_until(pilot, lambda: "line 50 ERROR" in screen_text(pilot))
    await pilot.press("n")
    await wait_until(pilot, lambda: "line 10 ERROR" in screen_text(pilot))
    await pilot.press("n")
    await wait_until(pilot, lambda: "line 50 ERROR" in screen_text(pilot))


def test_a_long_log_begins_with_its_last_whole_lines(tmp_path):
    log = tmp_path / "serve.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    tail = LogTail(log, last_bytes=25)
    assert tail.lines() == ["line 998", "line 999"]
    assert tail.skipped_bytes > 0
