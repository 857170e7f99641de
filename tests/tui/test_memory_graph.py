"""The graph as a widget: it follows its history, redraws only what changed, and survives a resize."""

from __future__ import annotations

import sys
from pathlib import Path

from textual.app import App, ComposeResult

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text, wait_until

from quantui.domain.units import GIB
from quantui.tui.memory_history import MemoryHistory
from quantui.tui.widgets.memory_graph import MemoryGraph, MovingColumns


class Shown(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.history = MemoryHistory()

    def compose(self) -> ComposeResult:
        yield MemoryGraph()

    @property
    def graph(self) -> MemoryGraph:
        return self.query_one(MemoryGraph)


async def test_it_follows_its_history_by_itself():
    app = Shown()
    async with app.run_test(size=(80, 12)) as pilot:
        app.graph.show(app.history, 0, total=24 * GIB)
        assert "GPU 0: no sample yet, total 24.0 GiB" in screen_text(pilot)
        app.history.series(0).add(1.0, 6 * GIB, 24 * GIB)
        await wait_until(pilot, lambda: "now 6.0 GiB" in screen_text(pilot))
        app.history.series(0).add(2.0, 9 * GIB, 24 * GIB)
        await wait_until(pilot, lambda: "now 9.0 GiB" in screen_text(pilot))


async def test_only_the_lines_that_changed_are_drawn_again():
    app = Shown()
    async with app.run_test(size=(80, 12)) as pilot:
        series = app.history.series(0)
        for at in range(60):
            series.add(at * 0.5, GIB, 24 * GIB)
        app.graph.show(app.history, 0, total=24 * GIB)
        await pilot.pause()
        lines: list[int] = []
        app.graph.refresh = lambda *regions, **_: lines.extend(region.y for region in regions)  # type: ignore[method-assign, assignment]
        app.graph.tick()
        assert lines == []
        series.add(30.0, 2 * GIB, 24 * GIB)
        app.graph.tick()
        height = app.graph.size.height
        assert lines
        assert set(lines) <= {0, height - 4, height - 3, height - 2, height - 1}


async def test_without_colours_it_says_the_same(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = Shown()
    async with app.run_test(size=(80, 12)) as pilot:
        app.history.series(0).add(1.0, 20 * GIB, 24 * GIB)
        app.graph.show(app.history, 0, total=24 * GIB, predicted=12 * GIB)
        await wait_until(pilot, lambda: "now 20.0 GiB" in screen_text(pilot))
        assert "╌╌╌╌" in screen_text(pilot)


async def test_a_resize_draws_it_for_the_room_there_is():
    app = Shown()
    async with app.run_test(size=(80, 12)) as pilot:
        for at in range(60):
            app.history.series(0).add(at * 0.5, GIB, 24 * GIB)
        app.graph.show(app.history, 0, total=24 * GIB, predicted=12 * GIB)
        for size in ((20, 4), (120, 40), (33, 9)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            rows = screen_text(pilot).splitlines()
            assert "1.0" in rows[0]
            assert all(len(row) <= size[0] for row in rows)


async def test_a_finished_run_fills_the_whole_width():
    app = Shown()
    async with app.run_test(size=(60, 9)) as pilot:
        for at in range(100):
            app.history.series(0).add(float(at), 24 * GIB, 24 * GIB)
        app.graph.show(app.history, 0, total=24 * GIB, begin=0.0, end=99.0)
        await pilot.pause()
        rows = screen_text(pilot).splitlines()
        assert rows[3].endswith("│" + "█" * 55)
        assert rows[7].split() == ["0", "s", "1", "min", "39", "s"]


async def test_the_total_of_the_samples_is_taken_where_none_is_given():
    app = Shown()
    async with app.run_test(size=(80, 9)) as pilot:
        app.history.series(0).add(1.0, GIB, 40 * GIB)
        app.graph.show(app.history, 0, total=None)
        await pilot.pause()
        assert "total 40.0 GiB" in screen_text(pilot)


async def test_a_lost_gpu_is_told_and_does_no_harm():
    app = Shown()
    async with app.run_test(size=(80, 9)) as pilot:
        app.history.series(0).add(1.0, GIB, 24 * GIB)
        app.graph.show(app.history, 0, total=None)
        app.history.series(0).lose(2.0)
        await wait_until(pilot, lambda: "lost since" in screen_text(pilot))


def test_columns_that_move_are_those_that_would_be_drawn_anew():
    history = MemoryHistory()
    series = history.series(0)
    moving = MovingColumns()
    for tick in range(400):
        at = 1000.0 + tick * 0.37
        series.add(at, (tick * 7919) % 1000, 1000)
        columns, begin = moving.of(series, at, 0.5, 30)
        assert columns == series.columns(begin, begin + 15.0, 30)
