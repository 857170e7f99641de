"""A run in a process of its own: followed by its record, cancelled by word or by the end of its wizard, or let go."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from hosted_runs import BUSY, Runs, Wizard, until
from live_processes import alive, carrying, wait_for
from run_plans import check_step, merge_step, plan_of, quantize_step, serve_step

from quantui.domain.errors import QuantuiError
from quantui.domain.events import (
    Answered,
    Notice,
    RunFinished,
    RunStarted,
    ServerReady,
    StepPhase,
    from_dict,
)
from quantui.runtime.hosted_run import HostedRun
from quantui.runtime.paths import runs_dir
from quantui.runtime.recorder import clear_abandoned, owner_mark
from quantui.runtime.run_record import RecordTail


@pytest.fixture
def runs():
    started = Runs()
    yield started
    started.end()


@pytest.fixture
def wizard(tmp_path):
    begun = []

    def begin(plan, what="stay"):
        begun.append(Wizard(tmp_path, plan, what))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def gone(run: HostedRun) -> bool:
    """Whether the host and every process of its run are gone."""
    return run.wait(30) and carrying(run.run_id.encode()) == []


def test_every_event_of_a_run_comes_from_the_first_to_the_last(runs, tmp_path):
    plan = plan_of(merge_step(tmp_path), serve_step(tmp_path), check_step())
    run = runs.start(plan, hold=False)
    events = list(run.events())
    assert isinstance(events[0], RunStarted)
    assert (events[0].run_id, events[0].directory) == (run.run_id, str(run.directory))
    assert events[-1].outcome == "ok"
    record = (run.directory / "events.jsonl").read_text().splitlines()
    assert events == [from_dict(json.loads(line)) for line in record]
    assert gone(run)


def test_who_comes_later_sees_the_run_from_its_first_event(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path)))
    first = list(run.events())
    assert list(run.events()) == first


def test_the_log_of_a_step_is_found(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, "print('said')\nPath(job['out']).mkdir()")))
    until(run, RunFinished)
    assert run.log("merge").read_text() == "said\n"


def test_the_host_is_in_a_session_of_its_own_where_no_signal_of_the_terminal_reaches_it(
    runs, tmp_path
):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    assert os.getsid(run.pid) == run.pid


def test_a_file_of_the_users_named_like_a_module_of_pythons_is_not_run(runs, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path / "here")
    assert until(runs.start(plan_of(merge_step(tmp_path))), RunFinished)[-1].outcome == "ok"


def test_following_ends_when_nobody_wants_to_hear_more(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    stop = threading.Event()
    for event in run.events(stop):
        if isinstance(event, StepPhase):
            stop.set()
    assert run.alive


PLANS = {
    "merging": lambda folder: plan_of(merge_step(folder, BUSY)),
    "producing": lambda folder: plan_of(quantize_step(folder, produce=BUSY)),
    "proving": lambda folder: plan_of(quantize_step(folder, prove=BUSY)),
    "loading": lambda folder: plan_of(serve_step(folder, Script(then="hang"))),
}


@pytest.mark.parametrize("phase", PLANS)
def test_cancelling_at_work_leaves_no_process(runs, tmp_path, phase):
    run = runs.start(PLANS[phase](tmp_path))
    until(run, StepPhase)
    run.cancel()
    assert until(run, RunFinished)[-1].outcome == "cancelled"
    assert gone(run)


@pytest.mark.parametrize("moment", [ServerReady, Answered])
def test_cancelling_a_server_leaves_no_process(runs, tmp_path, moment):
    run = runs.start(plan_of(serve_step(tmp_path), check_step()))
    until(run, moment)
    run.cancel()
    assert isinstance(until(run, RunFinished)[-1], RunFinished)
    assert gone(run)


def test_a_held_server_serves_until_the_run_is_cancelled(runs, tmp_path):
    run = runs.start(plan_of(serve_step(tmp_path), check_step()))
    until(run, Answered)
    assert "until stopped" in until(run, Notice)[-1].text
    assert run.alive
    run.cancel()
    assert until(run, RunFinished)[-1].outcome == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_host_is_a_cancel(runs, tmp_path, number):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    until(run, StepPhase)
    os.kill(run.pid, number)
    assert until(run, RunFinished)[-1].outcome == "cancelled"


def test_closing_cancels_a_run_that_was_not_detached_and_may_be_done_twice(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    until(run, StepPhase)
    run.close()
    run.close()
    assert until(run, RunFinished)[-1].outcome == "cancelled"
    assert gone(run)


@pytest.mark.parametrize(("plan", "moment", "outcome"), [
    (lambda folder: plan_of(merge_step(folder, BUSY)), StepPhase, "cancelled"),
    (lambda folder: plan_of(serve_step(folder), check_step()), Notice, "ok"),
], ids=["merging", "serving"])  # fmt: skip
def test_a_run_whose_wizard_is_killed_is_cancelled(wizard, tmp_path, plan, moment, outcome):
    one = wizard(plan(tmp_path))
    run = HostedRun(one.run_id, _directory(one), owner_mark(one.host))
    until(run, moment)
    one.kill()
    assert until(run, RunFinished)[-1].outcome == outcome
    assert gone(run)


def test_a_detached_run_outlives_its_wizard(wizard, tmp_path):
    go_on = tmp_path / "go-on"
    body = f"""
wire.phase("waiting")
while not Path({str(go_on)!r}).exists(): time.sleep(0.02)
Path(job['out']).mkdir()
"""
    one = wizard(plan_of(merge_step(tmp_path, body)), "detach")
    assert one.detached
    one.kill()
    go_on.touch()
    run = HostedRun(one.run_id, _directory(one), owner_mark(one.host))
    assert until(run, RunFinished)[-1].outcome == "ok"


def test_a_run_that_is_being_cancelled_cannot_be_detached(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    until(run, StepPhase)
    run.cancel()
    assert not run.detach()
    assert until(run, RunFinished)[-1].outcome == "cancelled"


def test_a_detached_run_can_still_be_cancelled(runs, tmp_path):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    assert run.detach()
    until(run, StepPhase)
    run.cancel()
    assert until(run, RunFinished)[-1].outcome == "cancelled"


def test_another_runs_start_leaves_a_detached_run_alone(runs, wizard, tmp_path):
    one = wizard(plan_of(serve_step(tmp_path), check_step()), "detach")
    one.kill()
    wait_for(lambda: carrying(one.run_id.encode()))
    until(runs.start(plan_of(merge_step(tmp_path))), RunFinished)
    assert alive(one.host)
    assert carrying(one.run_id.encode())


def test_a_host_that_is_killed_is_told_as_the_end_and_leaves_no_server(runs, tmp_path):
    run = runs.start(plan_of(serve_step(tmp_path), check_step()))
    until(run, Answered)
    os.kill(run.pid, signal.SIGKILL)
    last = until(run, RunFinished)[-1]
    assert (last.outcome, last.error["code"]) == ("failed", "run.host-died")
    wait_for(lambda: carrying(run.run_id.encode()) == [])


def test_the_record_of_a_killed_host_is_cleared_though_its_wizard_has_not_asked_for_its_status(
    runs, tmp_path
):
    run = runs.start(plan_of(merge_step(tmp_path, BUSY)))
    until(run, StepPhase)
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not alive(run.pid))
    clear_abandoned()
    assert not (run.directory / "owner.pid").exists()


def test_what_keeps_a_run_from_starting_comes_back_as_itself(runs, tmp_path, own_home):
    plan = plan_of(merge_step(tmp_path))
    own_home.write_text("a file stands in the way")
    with pytest.raises(QuantuiError) as raised:
        runs.start(plan)
    assert raised.value.code == "run.no-record"
    assert "QUANTUI_HOME" in raised.value.fix


@pytest.mark.parametrize("sent", [b"", b"\0" * 7, (100).to_bytes(8, "big") + b"half a plan"])
def test_a_host_whose_wizard_is_gone_before_it_got_its_plan_begins_nothing(sent):
    argv = [sys.executable, "-m", "quantui.runtime.run_host", "1"]
    done = subprocess.run(argv, input=sent, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert not runs_dir().exists()


def test_a_host_that_cannot_start_at_all_tells_the_last_it_said(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(QuantuiError) as raised:
        runs.start(plan_of(merge_step(tmp_path)))
    assert raised.value.code == "run.host-failed"


def test_a_defect_of_quantui_is_the_end_of_the_run_and_its_traceback_is_in_the_folder(
    runs, tmp_path
):
    run = runs.start(plan_of("no step"))
    last = until(run, RunFinished)[-1]
    assert (last.outcome, last.exit_code, last.error["code"]) == ("failed", 1, "quantui.defect")
    assert "Traceback" in (run.directory / "host.log").read_text()


def test_a_plan_is_the_same_after_its_way_to_the_host(tmp_path):
    plan = plan_of(
        merge_step(tmp_path), quantize_step(tmp_path), serve_step(tmp_path), check_step()
    )
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_line_without_its_end_waits_until_it_is_whole(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = RecordTail(path)
    assert list(tail.events()) == []
    path.write_text('{"type": "notice", "at": 1.0, "level": "info", "te')
    assert list(tail.events()) == []
    with path.open("a") as file:
        file.write('xt": "x"}\n')
    assert [event.text for event in tail.events()] == ["x"]
    assert list(tail.events()) == []


@pytest.mark.parametrize("line", ["", "[]", "{", '{"type": "of-next-year", "at": 1.0}', "\xff"])
def test_a_line_that_is_no_event_is_passed_over(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_text(line + '\n{"type": "notice", "at": 1.0, "level": "info", "text": "x"}\n')
    assert [event.text for event in RecordTail(path).events()] == ["x"]


def _directory(one: Wizard) -> Path:
    return runs_dir() / one.run_id
