"""Events become state in one place; an ETA is shown only when there is a rate to compute it from."""

from __future__ import annotations

import pytest

from quantui.domain.events import (
    LogLine,
    MemorySample,
    Notice,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepPhase,
    StepProgress,
    StepReused,
    StepStarted,
)
from quantui.domain.run_state import RunState, reduce

STEPS = (("merge", "merge it"), ("serve", "serve it"))
STARTED = RunStarted(at=0.0, run_id="r", steps=STEPS, directory="/d", quantui_version="1")
ERROR = {"code": "merge.not-enough-memory", "what": "No room."}


def after(*events):
    state = RunState()
    for event in (STARTED, *events):
        state = reduce(event, state)
    return state


def progress(at, done, total=100.0, unit="tensors"):
    return StepProgress(at=at, step="merge", done=done, total=total, unit=unit)


def began(at=0.0, detail="cpu"):
    return StepStarted(at=at, step="merge", detail=detail)


def eta(now, *events):
    return after(began(), *events).step("merge").eta_s(now)


def test_every_step_waits_when_a_run_starts():
    state = after()
    assert [(step.id, step.title, step.status) for step in state.steps] == [
        ("merge", "merge it", "waiting"),
        ("serve", "serve it", "waiting"),
    ]
    assert state.current is None


def test_a_step_runs_and_then_is_done_with_its_result():
    running = after(began())
    assert running.current.id == "merge"
    done = reduce(StepFinished(at=5.0, step="merge", seconds=5.0, result={"n": 1}), running)
    assert (done.step("merge").status, done.step("merge").seconds) == ("done", 5.0)
    assert done.step("merge").result == {"n": 1}
    assert done.current is None


def test_a_reused_step_stays_reused_when_it_is_finished():
    state = after(
        StepReused(at=1.0, step="merge", artifact="/a"),
        StepFinished(at=1.0, step="merge", seconds=0.0, result={}),
    )
    assert (state.step("merge").status, state.step("merge").detail) == ("reused", "/a")


def test_a_cascade_goes_on_from_gpu_to_cpu_and_forgets_the_first_try():
    first = after(
        began(detail="cuda:0"),
        StepPhase(at=1.0, step="merge", phase="reading"),
        progress(1.0, 50.0),
        StepFailed(at=2.0, step="merge", error=ERROR, final=False),
    )
    assert (first.step("merge").status, first.step("merge").error) == ("running", ERROR)
    step = reduce(began(at=3.0, detail="cpu"), first).step("merge")
    assert (step.status, step.detail, step.started) == ("running", "cpu", 3.0)
    assert (step.phase, step.phase_since, step.done, step.error) == ("", None, None, None)


def test_a_failure_that_is_final_fails_the_step():
    state = after(began(), StepFailed(at=2.0, step="merge", error=ERROR, final=True))
    assert state.step("merge").status == "failed"
    assert state.current is None


def test_a_new_phase_begins_its_own_progress():
    state = after(began(), progress(1.0, 50.0), StepPhase(at=2.0, step="merge", phase="writing"))
    step = state.step("merge")
    assert (step.phase, step.phase_since, step.done, step.total) == ("writing", 2.0, None, None)


def test_what_stands_before_the_first_layer_makes_no_rate():
    def layers(at, done):
        return StepProgress(at=at, step="merge", done=done, total=5.0, unit="layers")

    assert eta(0.2, layers(0.0, 0.0), layers(0.1, 1.0)) is None
    # A quarter of a layer in five seconds: 3.75 are left.
    assert eta(5.1, layers(0.0, 0.0), layers(0.1, 1.0), layers(5.1, 1.25)) == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], "nothing has been counted"),
        ([progress(0.0, 10.0)], "one count is no rate"),
        ([progress(0.0, 0.0, None), progress(10.0, 50.0, None)], "the total is unknown"),
        ([progress(0.0, 0.0), progress(10.0, 1.0)], "a hundredth is too little"),
        ([progress(8.5, 0.0), progress(9.0, 50.0)], "the time is too short"),
        ([progress(0.0, 50.0), progress(10.0, 50.0)], "nothing was made"),
    ],
)
def test_without_a_rate_there_is_no_eta(events, why):
    assert eta(10.0, *events) is None, why


def test_an_eta_is_what_is_left_at_the_mean_rate():
    assert eta(10.0, progress(0.0, 0.0), progress(10.0, 25.0)) == pytest.approx(30.0)


def test_a_rate_is_the_mean_since_the_first_count():
    state = after(began(), progress(0.0, 20.0), progress(5.0, 40.0), progress(10.0, 50.0))
    assert state.step("merge").rate(10.0) == pytest.approx(3.0)
    assert after(began(), progress(0.0, 20.0)).step("merge").rate(1.0) is None


def test_what_was_there_before_the_first_count_is_no_part_of_the_rate():
    assert eta(10.0, progress(0.0, 50.0), progress(10.0, 75.0)) == pytest.approx(10.0)


def test_a_standstill_lengthens_the_eta():
    events = [progress(0.0, 0.0), progress(10.0, 50.0)]
    assert eta(20.0, *events) > eta(10.0, *events)


def test_another_unit_is_another_rate():
    events = [progress(0.0, 0.0), progress(10.0, 50.0), progress(10.0, 30.0, unit="bytes")]
    assert eta(11.0, *events) is None


def test_a_count_that_begins_anew_is_another_rate():
    events = [progress(0.0, 0.0), progress(10.0, 100.0), progress(10.0, 0.0), progress(20.0, 50.0)]
    assert eta(20.0, *events) == pytest.approx(10.0)


def test_more_than_everything_is_no_negative_time():
    assert eta(10.0, progress(0.0, 0.0), progress(10.0, 120.0)) == 0.0


def test_peaks_are_kept_when_memory_is_given_back():
    state = after(
        MemorySample(at=1.0, tree_bytes=10, ram_available_bytes=1, gpus=((0, 5, 9), (1, 1, 9))),
        MemorySample(at=2.0, tree_bytes=None, ram_available_bytes=1, gpus=((0, 3, 9), (1, 4, 9))),
    )
    assert state.peak_tree_bytes == 10
    assert state.peak_gpu_bytes == ((0, 5), (1, 4))
    assert state.memory.at == 2.0


def test_log_lines_change_nothing():
    assert reduce(LogLine(at=1.0, step="merge", text="x"), after()) == after()


def test_notices_are_kept_in_order():
    state = after(Notice(at=1.0, level="info", text="a"), Notice(at=2.0, level="warning", text="b"))
    assert [notice.text for notice in state.notices] == ["a", "b"]


def test_an_event_of_a_step_nobody_announced_is_left_alone():
    event = StepStarted(at=1.0, step="unheard-of")
    assert reduce(event, after()).steps == after().steps


def test_the_end_is_kept():
    end = RunFinished(at=9.0, outcome="ok", exit_code=0, seconds=9.0)
    assert after(end).finished == end
