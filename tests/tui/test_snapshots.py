"""Golden screens of what lies over the steps, at two sizes; `pytest --snapshot-update` draws them anew."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import wait_until
from plain_wizard import PlainWizard
from recorded_runs import GIB, PLAN, record_run

from quantui.tui.screens.ask import Ask, Reply

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """Times of runs are told by the clock on the wall."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def runs():
    record_run("20270115-080000-aaaaaa", at=1_800_000_000.0)
    record_run(
        "20270115-090000-bbbbbb",
        at=1_800_003_600.0,
        plan={**PLAN, "method": "fp8_dynamic"},
        ram=3.2 * GIB,
        tokens_per_s=31.0,
        perplexity=(10.05, 10.0),
        load_s=55.0,
    )
    record_run(
        "20270115-100000-cccccc",
        at=1_800_007_200.0,
        outcome="failed",
        error={"what": "vLLM ran out of memory.", "why": "It is small.", "fix": "Lower it."},
    )


async def history(pilot, *keys):
    await pilot.press("h")
    await wait_until(pilot, lambda: pilot.app.screen.whole)
    await pilot.press(*keys)
    await pilot.pause()


@SIZES
def test_history(snap_compare, runs, size):
    assert snap_compare(PlainWizard(), terminal_size=size, run_before=history)


@SIZES
def test_two_runs_side_by_side(snap_compare, runs, size):
    async def before(pilot):
        await history(pilot, "down", "space", "down", "space", "x")

    assert snap_compare(PlainWizard(), terminal_size=size, run_before=before)


@SIZES
def test_a_figure_over_the_runs(snap_compare, runs, size):
    async def before(pilot):
        await history(pilot, "p", "right")

    assert snap_compare(PlainWizard(), terminal_size=size, run_before=before)


def test_history_without_runs(snap_compare):
    assert snap_compare(PlainWizard(), terminal_size=(80, 24), run_before=history)


def test_help(snap_compare):
    assert snap_compare(PlainWizard(), terminal_size=(80, 24), press=["question_mark"])


def test_a_question(snap_compare):
    async def before(pilot):
        replies = [Reply("keep", "k", "keep it running"), Reply("stop", "x", "stop it")]
        pilot.app.push_screen(Ask("A run is under way", "What becomes of it?", replies))
        await pilot.pause()

    assert snap_compare(PlainWizard(), terminal_size=(80, 24), run_before=before)
