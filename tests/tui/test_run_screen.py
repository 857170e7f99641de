"""The Run step: steps with their marks, stopping that is verified, and the way to Ready and Failure."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from live_processes import carrying
from pilots import screen_text, wait_until
from run_plans import check_step, merge_step, plan_of, quantize_step, serve_step
from wizard_runs import WAITS, running, shown, waiting_merge, wizard

from quantui.domain.events import (
    MemorySample,
    Notice,
    RunStarted,
    StepFinished,
    StepPhase,
    StepProgress,
    StepReused,
    StepStarted,
)
from quantui.runtime.artifacts import ArtifactStore
from quantui.tui.run_view import RunView


def whole(folder, **script):
    return plan_of(merge_step(folder), serve_step(folder, Script(**script)), check_step())


async def test_a_run_that_serves_goes_on_to_ready_by_itself(tmp_path):
    async with wizard() as (app, pilot):
        await running(app, pilot, whole(tmp_path))
        await wait_until(pilot, lambda: shown(app) == "ReadyScreen")


async def test_the_step_under_way_shows_its_phase_amount_and_an_honest_estimate(tmp_path):
    job, _ = waiting_merge(tmp_path)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, WAITS, job=job)))
        await wait_until(pilot, lambda: view.state.current and view.state.current.done)
        await wait_until(pilot, lambda: "1/4 tensors, estimating..." in screen_text(pilot))
        assert "▸ merge on cpu" in screen_text(pilot)
        assert "merging" in screen_text(pilot)


async def test_stopping_asks_and_the_safe_answer_has_the_focus(tmp_path):
    job, _ = waiting_merge(tmp_path)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, WAITS, job=job)))
        await wait_until(pilot, lambda: view.state.current)
        await pilot.press("x")
        await wait_until(pilot, lambda: shown(app) == "Ask")
        await pilot.press("enter")
        await wait_until(pilot, lambda: shown(app) == "RunScreen")
        assert view.living
        assert not view.cancelling


async def test_cancelled_is_said_once_nothing_is_held_any_more(tmp_path):
    job, _ = waiting_merge(tmp_path)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, WAITS, job=job)))
        await wait_until(pilot, lambda: view.state.memory and view.state.memory.tree_bytes)
        await pilot.press("x", "x")
        await wait_until(pilot, lambda: "✓ freed" in screen_text(pilot))
        assert "Cancelled after" in screen_text(pilot)
        assert "RAM of the run 0, no process left" in screen_text(pilot)
        assert carrying(view.hosted.run_id.encode()) == []
        assert not ArtifactStore().path_of(view.plan.step("merge").artifact).exists()


HOLDS = "time.sleep(600)"


@pytest.mark.parametrize("phase", ["merge", "quantize", "loading", "check"])
async def test_a_run_is_stopped_in_any_phase_without_a_trace(tmp_path, phase):
    plans = {
        "merge": lambda: plan_of(merge_step(tmp_path, HOLDS)),
        "quantize": lambda: plan_of(quantize_step(tmp_path, HOLDS)),
        "loading": lambda: plan_of(serve_step(tmp_path, Script(then="hang"))),
        "check": lambda: plan_of(serve_step(tmp_path, Script(hangs=True)), check_step()),
    }
    step = {"loading": "serve"}.get(phase, phase)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plans[phase]())
        await wait_until(
            pilot,
            lambda: (
                view.state.step(step)
                and view.state.step(step).status == "running"
                and carrying(view.state.run_id.encode())
            ),
        )
        await pilot.press("x", "x")
        await wait_until(pilot, lambda: view.followed, within_s=60)
        assert view.gave_back
        await wait_until(pilot, lambda: "no process left" in screen_text(pilot))


async def test_after_a_stop_enter_runs_it_again_and_reuses_what_was_made(tmp_path):
    plan = plan_of(merge_step(tmp_path), serve_step(tmp_path, Script(then="hang")))
    async with wizard() as (app, pilot):
        first = await running(app, pilot, plan)
        await wait_until(
            pilot, lambda: first.state.step("serve") and first.state.step("serve").started
        )
        await pilot.press("x", "x")
        await wait_until(pilot, lambda: first.followed, within_s=60)
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.run is not first)
        second = app.session.run
        await wait_until(
            pilot,
            lambda: second.state.step("merge") and second.state.step("merge").status == "reused",
        )
        await wait_until(pilot, lambda: "made before, reused" in screen_text(pilot))


async def test_a_screen_above_the_run_stays_until_it_is_left(tmp_path):
    async with wizard() as (app, pilot):
        job, gate = waiting_merge(tmp_path)
        merge = merge_step(tmp_path, WAITS, job=job)
        view = await running(app, pilot, plan_of(merge, serve_step(tmp_path, Script())))
        await pilot.press("question_mark")
        await wait_until(pilot, lambda: shown(app) == "Help")
        gate.touch()
        await wait_until(pilot, lambda: view.serving)
        await pilot.pause()
        assert shown(app) == "Help"
        await pilot.press("escape")
        await wait_until(pilot, lambda: shown(app) == "ReadyScreen")


async def test_the_log_is_one_key_away_and_follows(tmp_path):
    job, _ = waiting_merge(tmp_path)
    body = "print('first [red]line\\x1b[31m', flush=True)\n" + WAITS
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, body, job=job)))
        await wait_until(pilot, lambda: view.state.current and view.state.current.done)
        await pilot.press("l")
        await wait_until(pilot, lambda: "first [red]line" in screen_text(pilot))
        log = view.hosted.log("merge")
        with log.open("a") as file:
            file.write("".join(f"line {number}\n" for number in range(100)))
        await wait_until(pilot, lambda: "line 99" in screen_text(pilot))
        await pilot.press("pageup")
        await wait_until(pilot, lambda: "PAUSED" in screen_text(pilot))
        with log.open("a") as file:
            file.write("one more\n")
        await wait_until(pilot, lambda: "1 new line (f follows)" in screen_text(pilot))
        assert "one more" not in screen_text(pilot)
        await pilot.press("f")
        await wait_until(pilot, lambda: "one more" in screen_text(pilot))
        await pilot.press("slash", *"line 5", "enter")
        await wait_until(pilot, lambda: "11 lines with 'line 5'" in screen_text(pilot))


async def test_leaving_the_run_asks_and_keeps_it_running(tmp_path):
    job, gate = waiting_merge(tmp_path)
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(merge_step(tmp_path, WAITS, job=job)))
        await wait_until(pilot, lambda: view.state.current)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "keep it running" in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: shown(app) == "ReviewScreen")
        assert view.living
        gate.touch()


async def test_a_run_that_cannot_begin_is_told_on_the_review(tmp_path, monkeypatch):
    async with wizard() as (app, pilot):
        blocked = tmp_path / "a-file"
        blocked.touch()
        monkeypatch.setenv("QUANTUI_HOME", str(blocked))
        plan = whole(tmp_path)
        app.start_run(plan, object(), plan.draft)
        app.go("run")
        await wait_until(pilot, lambda: shown(app) == "ReviewScreen")
        await wait_until(pilot, lambda: "could not be made" in screen_text(pilot))
        assert app.session.run is None


async def test_a_host_that_is_killed_leads_to_the_failure_and_leaves_nothing(tmp_path):
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(serve_step(tmp_path, Script(then="hang"))))
        await wait_until(pilot, lambda: view.state.current and carrying(view.state.run_id.encode()))
        os.kill(view.hosted.pid, signal.SIGKILL)
        await wait_until(pilot, lambda: shown(app) == "FailureScreen")
        assert view.state.finished.error["code"] == "run.host-died"
        await wait_until(
            pilot, lambda: "try again: what was finished is reused" in screen_text(pilot)
        )
        await wait_until(pilot, lambda: view.followed, within_s=60)
        assert view.gave_back


# --- only drawing: a view that heard recorded events

STARTED = RunStarted(
    at=0.0,
    run_id="r",
    steps=(
        ("download", "download base"),
        ("merge", "merge my-lora"),
        ("serve", "serve"),
        ("check", "ask"),
    ),
    directory="/d",
    quantui_version="1",
)


async def drawn(*events, size=(80, 24)):
    """What the Run step shows of these events."""
    async with wizard(size) as (app, pilot):
        view = RunView()
        for event in (STARTED, *events):
            view.heard(event)
        app.session.run = view
        app.go("run")
        await wait_until(pilot, lambda: "merge my-lora" in screen_text(pilot))
        text = screen_text(pilot)
        app.session.run = None
    return text


async def test_each_state_of_a_step_has_a_mark_of_its_own():
    text = await drawn(
        StepReused(at=1.0, step="download", artifact="/a"),
        StepFinished(at=1.0, step="download", seconds=0.0, result={}),
        StepStarted(at=1.0, step="merge", detail="cuda:0"),
        StepFinished(at=66.0, step="merge", seconds=65.0, result={}),
        StepStarted(at=66.0, step="serve", detail="/e/bin/python"),
        StepPhase(at=67.0, step="serve", phase="loading weights"),
        StepProgress(at=68.0, step="serve", done=3, total=8, unit="shards"),
    )
    lines = [line.split("  ")[0].strip() for line in text.splitlines()]
    assert "↺ download base" in lines
    assert "✓ merge my-lora on cuda:0" in lines
    assert "▸ serve" in lines
    assert "· ask" in lines
    assert "1 min 05 s" in text
    assert "3/8 shards" in text


async def test_hostile_text_is_shown_harmless():
    evil = "[bold]evil[/nothing]\x1b]0;title\x07\u202e"
    text = await drawn(
        StepStarted(at=1.0, step="merge"),
        StepPhase(at=1.0, step="merge", phase=evil),
        Notice(at=1.0, level="warning", text=evil),
    )
    assert text.count("[bold]evil[/nothing]") == 2


async def test_a_gpu_that_is_lost_is_said():
    text = await drawn(
        StepStarted(at=1.0, step="merge"),
        MemorySample(at=2.0, tree_bytes=1, ram_available_bytes=1, gpus=((0, 5 << 30, 24 << 30),)),
        MemorySample(at=3.0, tree_bytes=1, ram_available_bytes=1),
    )
    assert "GPU 0 is lost" in text


async def test_nothing_is_cut_off_on_a_small_screen():
    notices = [
        Notice(at=1.0, level="info", text=f"notice {number} " + "word " * 30) for number in range(9)
    ]
    text = await drawn(StepStarted(at=1.0, step="merge"), *notices)
    assert "· ask" in text
    assert "6 earlier: w" in text
    assert "x stop" in text.splitlines()[-1]
    assert max(map(len, text.splitlines())) <= 80
