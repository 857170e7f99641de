"""The runs under way, whoever began them: found, followed from their first event, and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from hosted_runs import BUSY, Runs, Wizard, until
from live_processes import alive, carrying, wait_for
from run_plans import check_step, merge_step, plan_of, serve_step

from quantui.domain.errors import QuantuiError
from quantui.domain.events import (
    MemorySample,
    Notice,
    RunFinished,
    RunStarted,
    StepPhase,
    StepProgress,
    to_dict,
)
from quantui.domain.run_state import RunState, reduce
from quantui.runtime.hosted_run import signal_owner
from quantui.runtime.living_runs import attach, living_runs, stop_run
from quantui.runtime.paths import runs_dir
from quantui.runtime.recorder import RunFolder, owner_mark
from quantui.runtime.run_record import Fold

HEADLESS = """
import pickle, sys
from quantui.headless import cancel_on_signals
from quantui.runtime.runner import Runner
plan = pickle.load(open(sys.argv[1], "rb"))
with cancel_on_signals() as cancel:
    for _ in Runner(plan, cancel, hold_server=True).run():
        pass
"""


@pytest.fixture
def runs():
    started = Runs()
    yield started
    started.end()


@pytest.fixture
def bystander():
    """A process that has nothing to do with any run."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def recorded(directory: Path, *events) -> Path:
    path = directory / "events.jsonl"
    with path.open("a") as file:
        file.writelines(json.dumps(to_dict(event)) + "\n" for event in events)
    return path


def test_without_any_run_there_is_none_under_way():
    assert living_runs() == ()


def test_a_run_at_work_is_listed_with_its_step(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY, title="merge my-lora into base")))
    until(run, StepPhase)
    (found,) = living_runs()
    assert (found.run_id, found.directory, found.pid) == (run.run_id, run.directory, run.pid)
    assert (found.title, found.serving) == ("merge my-lora into base", False)
    assert found.state.current.phase == "busy"
    assert found.started == found.state.started


def test_a_run_that_serves_is_listed_with_its_name_and_address(runs, tmp_path):
    serve = serve_step(tmp_path)
    run = runs.start(plan_of(serve, check_step()))
    until(run, Notice)
    (found,) = living_runs()
    assert found.serving
    assert found.title == f"served at http://127.0.0.1:{serve.port}/v1"


def test_a_run_that_is_over_is_not_listed(runs, tmp_path):
    until(runs.start(plan_of(merge_step(tmp_path))), RunFinished)
    assert living_runs() == ()


def test_a_run_whose_process_died_is_not_listed(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    until(run, StepPhase)
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not alive(run.pid))
    assert living_runs() == ()


def test_a_run_without_a_record_yet_is_listed():
    folder = RunFolder.create()
    (found,) = living_runs()
    assert (found.run_id, found.title, found.started) == (folder.run_id, "starting", None)


def test_a_detached_run_is_found_followed_and_stopped_by_another_wizard(tmp_path):
    one = Wizard(tmp_path, plan_of(serve_step(tmp_path), check_step()), "detach")
    try:
        one.kill()
        run = attach(one.run_id)
        events = until(run, Notice)
        assert isinstance(events[0], RunStarted)
        assert stop_run(one.run_id)
        assert list(run.events())[-1].outcome == "ok"
        assert living_runs() == ()
        assert carrying(one.run_id.encode()) == []
    finally:
        one.end()


def test_a_headless_run_is_found_and_stopped(tmp_path):
    import pickle

    plan = tmp_path / "plan"
    plan.write_bytes(pickle.dumps(plan_of(serve_step(tmp_path), check_step())))
    process = subprocess.Popen([sys.executable, "-c", HEADLESS, str(plan)])
    try:
        wait_for(lambda: any(run.serving for run in living_runs()))
        (found,) = living_runs()
        assert found.pid == process.pid
        assert stop_run(found.run_id)
        assert process.wait() == 0
        assert carrying(found.run_id.encode()) == []
    finally:
        process.kill()
        process.wait()


def test_a_run_that_does_not_stop_in_time_is_told(bystander):
    folder = RunFolder.create()
    (folder.path / "owner.pid").write_text(owner_mark(bystander.pid))
    os.kill(bystander.pid, signal.SIGSTOP)
    os.waitpid(bystander.pid, os.WUNTRACED)
    assert not stop_run(folder.run_id, timeout_s=0.1)
    os.kill(bystander.pid, signal.SIGCONT)
    assert bystander.wait() == -signal.SIGTERM


def test_a_process_that_got_the_number_of_a_dead_owner_is_never_hit(bystander):
    folder = RunFolder.create()
    pid, started = owner_mark(bystander.pid).split()
    owner = f"{pid} {int(started) - 1}"
    (folder.path / "owner.pid").write_text(owner)
    assert stop_run(folder.run_id)
    signal_owner(owner, signal.SIGKILL)
    signal_owner(owner_mark(bystander.pid), signal.SIGTERM)
    assert bystander.wait() == -signal.SIGTERM


@pytest.mark.parametrize("run_id", ["20260101-000000-abcdef", "../elsewhere", ""])
def test_a_run_that_is_not_under_way_cannot_be_attached_and_need_not_be_stopped(run_id):
    with pytest.raises(QuantuiError) as raised:
        attach(run_id)
    assert raised.value.code == "run.not-living"
    assert stop_run(run_id)


def test_the_state_of_a_record_is_that_of_its_events_however_it_is_read(tmp_path):
    events = [
        RunStarted(at=1.0, run_id="r", steps=(("merge", "m"),), directory="d", quantui_version="1"),
        *(
            MemorySample(
                at=float(n), tree_bytes=n % 7, ram_available_bytes=9, gpus=((0, n % 5, 9),)
            )
            for n in range(2, 40)
        ),
        StepProgress(at=41.0, step="merge", done=1.0, total=2.0, unit="tensors"),
        MemorySample(at=42.0, tree_bytes=None, ram_available_bytes=None),
    ]
    state, fold = RunState(), Fold(tmp_path / "events.jsonl")
    for event in events:
        recorded(tmp_path, event)
        state = reduce(event, state)
        assert fold.state() == state
    assert Fold(tmp_path / "events.jsonl").state() == state


def test_a_long_record_is_read_once_and_then_only_where_it_grew():
    folder = RunFolder.create()
    sample = MemorySample(at=1.0, tree_bytes=1, ram_available_bytes=1)
    path = recorded(folder.path, *[sample] * 1000)
    assert living_runs()[0].state.peak_tree_bytes == 1
    # What was read is not read again: that it is garbage now goes unnoticed.
    path.write_bytes(b"x" * path.stat().st_size)
    recorded(folder.path, MemorySample(at=2.0, tree_bytes=5, ram_available_bytes=1))
    (found,) = living_runs()
    assert (found.state.peak_tree_bytes, found.state.memory.at) == (5, 2.0)
    assert runs_dir() == folder.path.parent
