"""The background list, and leaving: what goes on without the wizard is found again, what is stopped is gone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from hosted_runs import Runs
from live_processes import carrying
from pilots import screen_text, wait_until
from run_plans import check_step, merge_step, plan_of, serve_step
from wizard_runs import REPORT, WAITS, running, shown, waiting_merge, wizard

from quantui.runtime.living_runs import living_runs, stop_run
from quantui.tui.app import QuantuiApp


@pytest.fixture
def runs():
    """Runs that another wizard left in the background."""
    started = Runs()
    yield started
    started.end()


def left_behind(runs, folder):
    """A server that goes on without whoever began it."""
    run = runs.start(plan_of(serve_step(folder), check_step()))
    assert run.detach()
    return run


async def serving(pilot):
    await wait_until(pilot, lambda: any(run.serving for run in living_runs()))


# --- the list


async def test_without_any_run_the_list_says_how_one_comes_there():
    async with wizard() as (_app, pilot):
        await pilot.press("b")
        await wait_until(pilot, lambda: "Nothing runs in the background." in screen_text(pilot))
        assert "(⏎ go to it)" in screen_text(pilot).splitlines()[-1]


async def test_a_run_left_behind_is_counted_at_the_start_listed_and_attached(tmp_path, runs):
    run = left_behind(runs, tmp_path)
    async with wizard() as (app, pilot):
        await wait_until(pilot, lambda: app.background_count == 1)
        await serving(pilot)
        await pilot.press("b")
        await wait_until(pilot, lambda: "✓ serving" in screen_text(pilot))
        assert "served at http://127.0.0.1:" in screen_text(pilot)
        await pilot.resize_terminal(120, 40)
        await wait_until(pilot, lambda: str(run.pid) in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: shown(app) == "ReadyScreen")
        assert app.session.run.detached
        await wait_until(pilot, lambda: app.screen._snippets)
        await pilot.press("h", "i", "enter")
        await wait_until(pilot, lambda: "Paris." in screen_text(pilot))
        await pilot.press("escape", "q")
    assert run.alive


async def test_one_is_stopped_from_the_list_and_proven_gone(tmp_path, runs):
    run = left_behind(runs, tmp_path)
    async with wizard() as (_app, pilot):
        await serving(pilot)
        await pilot.press("b")
        await wait_until(pilot, lambda: "✓ serving" in screen_text(pilot))
        await pilot.press("x", "x")
        await wait_until(pilot, lambda: "✓ stopped:" in screen_text(pilot), within_s=60)
        assert "0 now, no process left" in screen_text(pilot)
        await wait_until(pilot, lambda: "Nothing runs in the background." in screen_text(pilot))
    assert not run.alive
    assert carrying(run.run_id.encode()) == []


async def test_the_own_run_is_listed_too_and_enter_goes_back_to_it(tmp_path):
    job, gate = waiting_merge(tmp_path)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, WAITS, job=job)))
        await wait_until(pilot, lambda: view.state.current)
        await pilot.press("escape", "enter")
        await wait_until(pilot, lambda: shown(app) == "ReviewScreen")
        await pilot.press("b")
        await wait_until(pilot, lambda: "(this window)" in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: shown(app) == "RunScreen")
        assert app.session.run is view
        gate.touch()


async def test_a_failure_of_an_attached_run_is_shown_without_fixes(tmp_path, runs):
    run = runs.start(plan_of(serve_step(tmp_path, Script(die_after=3, status=1)), check_step()))
    run.detach()
    async with wizard() as (app, pilot):
        await serving(pilot)
        app.attach(run.run_id)
        app.go("run")
        await wait_until(pilot, lambda: shown(app) == "ReadyScreen" and app.screen._snippets)
        await pilot.press("h", "i", "enter")
        await wait_until(pilot, lambda: shown(app) == "FailureScreen", within_s=40)
        assert "Esc goes back to Review." in screen_text(pilot)


# --- leaving


async def test_without_a_run_q_quits_at_once():
    app = QuantuiApp(REPORT)
    async with app.run_test() as pilot:
        await pilot.press("q")
        await wait_until(pilot, lambda: not app.is_running)
    assert app.return_value == 0


async def test_quitting_asks_and_staying_is_possible(tmp_path):
    job, gate = waiting_merge(tmp_path)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, WAITS, job=job)))
        await wait_until(pilot, lambda: view.state.current)
        await pilot.press("q")
        await wait_until(pilot, lambda: "Quit while it runs?" in screen_text(pilot))
        await pilot.press("q", "s")
        await wait_until(pilot, lambda: shown(app) == "RunScreen")
        assert view.living
        gate.touch()


async def test_keeping_is_the_answer_under_the_focus_and_the_run_goes_on(tmp_path):
    job, gate = waiting_merge(tmp_path)
    app = QuantuiApp(REPORT)
    plan = plan_of(merge_step(tmp_path, WAITS, job=job), serve_step(tmp_path), check_step())
    async with app.run_test() as pilot:
        view = await running(app, pilot, plan)
        await wait_until(pilot, lambda: view.state.current)
        await pilot.press("q")
        await wait_until(pilot, lambda: "Quit while it runs?" in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: not app.is_running)
    assert app.return_value == 0
    assert view.hosted.alive
    (run,) = living_runs()
    assert run.run_id == view.hosted.run_id
    gate.touch()
    assert await asyncio.to_thread(stop_run, run.run_id, 60)
    assert carrying(run.run_id.encode()) == []


@pytest.mark.parametrize("phase", ["merge", "loading", "serving"])
async def test_stop_and_quit_leaves_nothing_and_tells_the_shell(tmp_path, phase):
    job, _ = waiting_merge(tmp_path)
    plans = {
        "merge": lambda: plan_of(merge_step(tmp_path, WAITS, job=job)),
        "loading": lambda: plan_of(serve_step(tmp_path, Script(then="hang"))),
        "serving": lambda: plan_of(serve_step(tmp_path), check_step()),
    }
    app = QuantuiApp(REPORT)
    async with app.run_test() as pilot:
        view = await running(app, pilot, plans[phase]())
        await wait_until(pilot, lambda: view.serving if phase == "serving" else view.state.current)
        if phase == "serving":
            await wait_until(pilot, lambda: shown(app) == "ReadyScreen")
            await pilot.press("escape")
        await pilot.press("q")
        await wait_until(pilot, lambda: "Quit while" in screen_text(pilot))
        await pilot.press("x")
        await wait_until(pilot, lambda: not app.is_running, within_s=60)
    assert app.return_value == (0 if phase == "serving" else 130)
    assert not view.hosted.alive
    assert carrying(view.hosted.run_id.encode()) == []


async def test_keep_on_ready_quits_and_the_server_stays(tmp_path):
    app = QuantuiApp(REPORT)
    async with app.run_test() as pilot:
        view = await running(app, pilot, plan_of(serve_step(tmp_path), check_step()))
        await wait_until(pilot, lambda: shown(app) == "ReadyScreen")
        await pilot.press("escape", "k")
        await wait_until(pilot, lambda: not app.is_running)
    (run,) = living_runs()
    assert run.serving
    assert await asyncio.to_thread(stop_run, view.hosted.run_id, 60)
