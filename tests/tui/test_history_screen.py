"""The history: a row a run, details, two side by side, a figure over all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text, wait_until
from plain_wizard import PlainWizard
from recorded_runs import GIB, PLAN, record_run

from quantui.domain.run_summary import Figure, RunSummary, StepSummary
from quantui.tui.history_rows import PLOTTED, compare, facts, memory
from quantui.tui.screens.history_plot import bar, most, shown

LEFT = RunSummary(
    "a",
    "/a",
    "ok",
    1.0,
    40.0,
    "m",
    (),
    "awq",
    "vllm",
    8192,
    2.0 * GIB,
    1.0 * GIB,
    "s",
    30.0,
    (StepSummary("serve", "serve", "done", 30.0),),
    (Figure("decoding", 20.0, "tokens/s", "s", None, None),),
)
RIGHT = RunSummary("b", "/b", "failed", 2.0, 20.0, "m", (), "int8_w8a8", "vllm", 8192)


async def opened(pilot):
    await pilot.press("h")
    await wait_until(pilot, lambda: pilot.app.screen.whole)
    await pilot.pause()


async def test_without_runs_it_says_what_makes_one():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "No run is recorded yet." in screen_text(pilot)
        await pilot.press("enter", "space", "x", "p")
        assert "No run is recorded yet." in screen_text(pilot)


async def test_a_run_is_a_row_with_its_outcome_in_a_word():
    record_run("20270101-000000-aaaaaa")
    record_run("20270102-000000-aaaaaa", outcome="failed", error={"what": "Too little memory."})
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        text = screen_text(pilot)
        assert "2 runs, 1 of them ok" in text
        assert "✗ failed" in text
        assert "✓ ok" in text
        assert "1.90 GiB" in text
        assert "✗ Too little memory." in text
        assert "1.90 GiB measured, 2.00 GiB predicted (-5 %)" in text


async def test_details_name_steps_figures_and_their_sources():
    record_run("20270101-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 40)) as pilot:
        await opened(pilot)
        await pilot.press("enter")
        text = screen_text(pilot)
        assert "✓ serve with vLLM, AWQ: done, 30.0 s" in text
        assert "10.2, 16 bit 10, +2.00 %" in text
        assert "source: 4088 held-out tokens" in text
        await pilot.press("escape")
        assert "20270101-000000-aaaaaa" not in screen_text(pilot)


async def test_two_marked_runs_are_compared_the_older_one_on_the_left():
    record_run("20270101-000000-aaaaaa", tokens_per_s=20)
    record_run("20270102-000000-aaaaaa", plan={**PLAN, "method": "fp8_dynamic"}, tokens_per_s=30)
    async with PlainWizard().run_test(size=(80, 40)) as pilot:
        await opened(pilot)
        await pilot.press("x")
        assert "change" not in screen_text(pilot)
        await pilot.press("space", "down", "m", "x")
        lines = screen_text(pilot).splitlines()
        (method,) = [line for line in lines if " method  " in line and "awq" in line]
        assert method.index("awq") < method.index("fp8_dynamic") < method.index("differs")
        (speed,) = [line for line in lines if "one stream" in line and "+50.0 %" in line]
        assert speed.index("20 tokens/s") < speed.index("30 tokens/s")


async def test_a_third_mark_takes_the_first_away():
    for day in range(1, 4):
        record_run(f"2027010{day}-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("space", "down", "space", "down", "space")
        assert pilot.app.screen.marked == ["20270102-000000-aaaaaa", "20270101-000000-aaaaaa"]
        await pilot.press("space")
        assert pilot.app.screen.marked == ["20270102-000000-aaaaaa"]


async def test_a_figure_is_plotted_and_another_is_a_key_away():
    record_run("20270101-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("p")
        assert "memory, the newest first; the axis goes from 0 to 2.00 GiB" in screen_text(pilot)
        await pilot.press("right", "right")
        assert "speed of one stream" in screen_text(pilot)
        await pilot.press("left", "escape")
        assert "plot" not in screen_text(pilot).splitlines()[1]


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)])
async def test_names_of_strangers_are_shown_as_text_at_any_size(size):
    name = "evil/[bold red]x[/]\x1b]52;c;YQ==\x07\u202e名前"
    record_run("20270101-000000-aaaaaa", plan={**PLAN, "model": name, "method": "[link]"})
    async with PlainWizard().run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("enter", "escape", "p", "escape", "space", "space")
        assert "\x1b" not in screen_text(pilot)
        assert "\u202e" not in screen_text(pilot)


async def test_it_closes_with_the_key_that_opened_it():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        step = pilot.app.screen
        await opened(pilot)
        await pilot.press("h")
        assert pilot.app.screen is step


def test_a_comparison_has_the_same_lines_whatever_a_run_lacks():
    lines = {line.name: line for line in compare(LEFT, RIGHT)}
    assert lines["method"].difference == "differs"
    assert lines["model"].difference == ""
    assert (lines["load time"].left, lines["load time"].right) == ("30.0 s", "unknown")
    assert lines["whole run"].difference == "-50.0 %"
    assert [line.name for line in compare(RIGHT, LEFT)] == [
        line.name for line in compare(LEFT, RIGHT)
    ]


def test_what_was_not_measured_is_unknown():
    assert memory(RIGHT) == "unknown"
    assert memory(LEFT) == "1.00 GiB measured, 2.00 GiB predicted (-50 %)"
    assert dict(facts(RIGHT))["perplexity"] == "unknown"


def test_a_bar_is_drawn_in_eighths_on_an_axis_that_all_share():
    assert bar(1.0, None, 2.0, 4) == "██  "
    assert bar(2.0, None, 2.0, 4) == "████"
    assert bar(0.3, None, 2.0, 4) == "▋   "
    assert bar(1.0, 1.5, 2.0, 4) == "██ │"
    assert bar(-0.5, None, 2.0, 4) == "    "
    assert bar(1.0, None, 0.0, 4) == ""


def test_the_axis_ends_at_the_highest_value_or_prediction():
    assert most((LEFT, RIGHT), PLOTTED[0]) == 2 * GIB
    assert shown((LEFT, RIGHT), PLOTTED[0]) == (LEFT,)
