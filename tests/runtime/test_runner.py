"""The runner does what a plan says, and however it ends, no process and no artifact that lies is left."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from live_processes import carrying
from run_plans import check_step, merge_step, plan_of, serve_step

from quantui.domain.errors import ExitCode
from quantui.domain.events import (
    Answered,
    Measured,
    Notice,
    RunFinished,
    RunStarted,
    ServerReady,
    StepFailed,
    StepFinished,
    StepPhase,
    StepReused,
    StepStarted,
    from_dict,
)
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.runner import Runner

STOPPABLE = """
wire.phase("busy")
time.sleep(600)
"""


@pytest.fixture
def go():
    """Runs a plan to its end; ``until``: cancelled at the first event of that kind."""
    runners = []

    def run(plan, *, until=None, hold=False):
        cancel = threading.Event()
        runner = Runner(plan, cancel, hold_server=hold)
        runners.append(runner)
        events = []
        for event in runner.run():
            events.append(event)
            if until is not None and isinstance(event, until):
                cancel.set()
        return events

    yield run
    for runner in runners:
        assert carrying(runner.folder.run_id.encode()) == []
        assert not (runner.folder.path / "owner.pid").exists()


@contextlib.contextmanager
def opened(plan, **options):
    """The events of a run that is closed early."""
    runner = Runner(plan, threading.Event(), **options)
    events = runner.run()
    yield runner, events
    events.close()
    assert carrying(runner.folder.run_id.encode()) == []
    assert not (runner.folder.path / "owner.pid").exists()


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def end(events):
    assert isinstance(events[-1], RunFinished)
    return events[-1]


def artifacts():
    """What is in the artifact store, locks left out."""
    root = ArtifactStore().root
    return sorted(p.name for p in root.iterdir() if not p.name.endswith(".lock"))


def test_a_whole_run_merges_serves_asks_and_stops(go, tmp_path):
    events = go(plan_of(merge_step(tmp_path), serve_step(tmp_path), check_step()))
    assert isinstance(events[0], RunStarted)
    assert [event.step for event in of(StepFinished, events)] == ["merge", "serve", "check"]
    (answer,) = of(Answered, events)
    assert (answer.text, answer.tokens) == (" Paris.", 2)
    assert (end(events).outcome, end(events).exit_code, end(events).error) == ("ok", 0, None)


def test_the_events_of_a_run_can_be_read_from_its_record(go, tmp_path):
    events = go(plan_of(merge_step(tmp_path)))
    record = Path(events[0].directory, "events.jsonl").read_text().splitlines()
    told = [event for event in events if event.type != "log"]
    assert [from_dict(json.loads(line)) for line in record] == told


def test_the_log_of_a_real_vllm_gives_its_phases_in_order(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path)))
    assert [event.phase for event in of(StepPhase, events) if event.step == "serve"] == [
        "starting the server process",
        "reading the model's configuration",
        "starting the engine process",
        "loading weights",
        "sizing the KV cache",
        "sizing the KV cache",
        "opening the endpoint",
        "opening the endpoint",
    ]


def test_what_the_server_told_of_itself_stands_beside_the_estimate(go, tmp_path):
    script = Script(
        lines=["(Worker pid=1) INFO 11-21 09:42:27 [x.py:1] Model loading took 0.5 GiB"]
    )
    measured = {
        m.name: m for m in of(Measured, go(plan_of(serve_step(tmp_path, script), check_step())))
    }
    assert (measured["weights"].value, measured["weights"].predicted) == (0.5 * 2**30, 2**20)
    assert (measured["KV cache"].value, measured["KV cache"].predicted) == (32768, 32768)


def test_a_second_run_reuses_the_artifact_and_merges_nothing(go, tmp_path):
    go(plan_of(merge_step(tmp_path)))
    events = go(plan_of(merge_step(tmp_path, "raise SystemExit('merged twice')")))
    assert [event.artifact for event in of(StepReused, events)] == [merge_step(tmp_path).path]
    assert of(StepStarted, events) == []
    assert end(events).outcome == "ok"


def test_recreate_merges_again(go, tmp_path):
    go(plan_of(merge_step(tmp_path)))
    body = "Path(job['out']).mkdir(); Path(job['out'], 'new').write_text('x')"
    events = go(plan_of(merge_step(tmp_path, body, recreate=True)))
    assert of(StepReused, events) == []
    assert (Path(merge_step(tmp_path).path) / "new").exists()
    assert not (Path(merge_step(tmp_path).path) / "model.safetensors").exists()


def test_a_merge_without_memory_on_the_gpu_goes_on_on_the_cpu(go, tmp_path):
    body = """
if job["device"] != "cpu":
    raise wire.WorkerError("merge.not-enough-memory", "Too little VRAM.", exit_code=3)
Path(job["out"]).mkdir()
"""
    events = go(plan_of(merge_step(tmp_path, body, devices=("cuda:0", "cpu"))))
    assert [event.detail for event in of(StepStarted, events)] == ["cuda:0", "cpu"]
    (failed,) = of(StepFailed, events)
    assert (failed.final, failed.error["code"]) == (False, "merge.not-enough-memory")
    assert end(events).outcome == "ok"


def test_a_merge_on_a_gpu_sees_that_gpu_alone_whatever_the_user_made_visible(
    go, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    body = """
names = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
wire.notice(" ".join([job["device"], *(os.environ[name] for name in names)]))
Path(job["out"]).mkdir()
"""
    events = go(plan_of(merge_step(tmp_path, body, devices=("cuda:3",))))
    assert [notice.text for notice in of(Notice, events)] == ["cuda:0 PCI_BUS_ID 3"]
    made = ArtifactStore().find(merge_step(tmp_path).artifact)
    assert made.record["made"]["device"] == "cuda:3"


def test_a_merge_killed_for_memory_on_the_gpu_goes_on_on_the_cpu(go, tmp_path):
    body = "if job['device'] != 'cpu': os.kill(os.getpid(), 9)\nPath(job['out']).mkdir()"
    events = go(plan_of(merge_step(tmp_path, body, devices=("cuda:0", "cpu"))))
    assert end(events).outcome == "ok"


def test_an_adapter_that_does_not_fit_is_not_tried_on_another_device(go, tmp_path):
    body = "raise wire.WorkerError('adapter.other-base', 'Other base.', exit_code=2)"
    events = go(plan_of(merge_step(tmp_path, body, devices=("cuda:0", "cpu"))))
    assert len(of(StepStarted, events)) == 1
    assert [failed.final for failed in of(StepFailed, events)] == [True]
    assert end(events).exit_code == ExitCode.BAD_INPUT


def test_when_no_device_can_merge_the_run_ends_with_the_last_reason(go, tmp_path):
    body = "raise wire.WorkerError('merge.not-enough-memory', f'No room on {job[\"device\"]}.', exit_code=3)"
    events = go(plan_of(merge_step(tmp_path, body, devices=("cuda:0", "cpu"))))
    assert end(events).error["what"] == "No room on cpu."
    assert end(events).exit_code == ExitCode.DOES_NOT_FIT
    assert artifacts() == []


def test_when_no_device_can_merge_base_and_adapter_can_be_served_unmerged(go, tmp_path):
    body = "raise wire.WorkerError('merge.not-enough-memory', 'No room.', exit_code=3)"
    unmerged = serve_step(tmp_path)
    serve = serve_step(
        tmp_path, port=unmerged.port, argv=("/nonexistent", "merged"), lora_argv=unmerged.argv
    )
    events = go(
        plan_of(merge_step(tmp_path, body, serve_lora_on_failure=True), serve, check_step())
    )
    assert any("adapter beside it" in notice.text for notice in of(Notice, events))
    assert end(events).outcome == "ok"


def test_what_a_failed_merge_began_is_removed(go, tmp_path):
    body = "Path(job['out']).mkdir(); Path(job['out'], 'half').write_text('x')\nraise KeyError"
    go(plan_of(merge_step(tmp_path, body)))
    assert artifacts() == []


HALF = """
partial = Path(job["out"] + ".partial")
wire.notice("found " + " ".join(sorted(p.name for p in partial.glob("*"))))
partial.mkdir(exist_ok=True)
(partial / "merge_journal.jsonl").touch()
(partial / "1.safetensors").write_bytes(bytes(3 << 20))
"""
"""A worker that was killed, or met a full disk, leaves what it had finished."""


def full(code):
    return HALF + f"raise wire.WorkerError({code!r}, 'No.', 'Why.', 'Free it.', exit_code=3)"


KILLED = HALF + "os.kill(os.getpid(), 9)"
WHOLE = HALF + "partial.rename(job['out'])"


@pytest.mark.parametrize(
    "body",
    [full("disk.full"), full("disk.not-enough"), full("worker.out-of-memory"), KILLED],
    ids=["disk full", "disk too small", "out of memory", "killed"],
)
def test_what_a_merge_had_finished_is_kept_and_the_next_run_goes_on_from_it(go, tmp_path, body):
    command = ("merge", "./my base", "./lora")
    first = merge_step(tmp_path, body, command=command)
    error = end(go(plan_of(first))).error
    partial = f"{first.path}.staged.partial"
    assert artifacts() == [Path(partial).name]
    assert f"3.0 MiB in {partial}" in error["fix"]
    assert error["detail"][0] == "give it back: quantui merge './my base' ./lora --discard"

    events = go(plan_of(merge_step(tmp_path, WHOLE)))
    assert [notice.text for notice in of(Notice, events)] == [
        "found 1.safetensors merge_journal.jsonl"
    ]
    assert artifacts() == [first.artifact.folder]


def test_the_next_device_goes_on_from_what_the_first_had_finished(go, tmp_path):
    body = HALF + "if job['device'] != 'cpu': os.kill(os.getpid(), 9)\npartial.rename(job['out'])"
    events = go(plan_of(merge_step(tmp_path, body, devices=("cuda:0", "cpu"))))
    assert [notice.text for notice in of(Notice, events)] == [
        "found ", "found 1.safetensors merge_journal.jsonl",
    ]  # fmt: skip
    assert end(events).outcome == "ok"


def test_a_disk_too_small_keeps_what_is_there_and_says_so(go, tmp_path):
    go(plan_of(merge_step(tmp_path, KILLED)))
    step = merge_step(tmp_path, WHOLE, bytes=1 << 60)
    error = end(go(plan_of(step))).error
    assert error["code"] == "disk.too-little"
    assert f"{step.path}.staged.partial" in error["fix"]
    assert artifacts() == [f"{step.artifact.folder}.staged.partial"]


@pytest.mark.parametrize("name", ["1.safetensors", "merge_journal.jsonl"])
def test_what_a_merge_could_not_go_on_from_is_removed_though_it_was_killed(go, tmp_path, name):
    body = HALF + f"(partial / {name!r}).unlink()\nos.kill(os.getpid(), 9)"
    error = end(go(plan_of(merge_step(tmp_path, body)))).error
    assert "--discard" not in error["fix"]
    assert artifacts() == []


@pytest.mark.parametrize("code", ["merge.not-finite", "merge.proof-failed", "adapter.other-base"])
def test_what_was_merged_before_an_error_of_its_content_is_removed(go, tmp_path, code):
    go(plan_of(merge_step(tmp_path, full(code))))
    assert artifacts() == []


def test_cancelling_a_merge_that_goes_on_removes_all_of_it(go, tmp_path):
    go(plan_of(merge_step(tmp_path, KILLED)))
    go(plan_of(merge_step(tmp_path, HALF + STOPPABLE)), until=StepPhase)
    assert artifacts() == []


def test_the_device_that_is_recorded_is_where_the_worker_ended(go, tmp_path):
    for told, device in (("cpu", "cpu"), ("cuda:0", "cuda:3")):
        body = f"Path(job['out']).mkdir()\nreturn {{'bytes': 1, 'device': {told!r}}}"
        step = merge_step(tmp_path, body, devices=("cuda:3",), recreate=True)
        (finished,) = of(StepFinished, go(plan_of(step)))
        assert finished.result["device"] == device


# Into a folder of the user's ---------------------------------------------------------------------


def to_folder(folder, body=WHOLE, **changes):
    out = str(folder / "merged")
    command = ("merge", "base", "lora", "--out", out)
    return merge_step(folder, body, path=out, to_folder=True, command=command, **changes)


def test_a_merge_into_a_folder_makes_that_folder_and_no_artifact(go, tmp_path):
    (finished,) = of(StepFinished, go(plan_of(to_folder(tmp_path))))
    assert finished.result["path"] == str(tmp_path / "merged")
    assert (tmp_path / "merged" / "1.safetensors").exists()
    assert artifacts() == []


def test_a_folder_that_exists_is_never_touched(go, tmp_path):
    (tmp_path / "merged").mkdir()
    events = go(plan_of(to_folder(tmp_path, recreate=True)))
    assert end(events).error["code"] == "merge.exists"
    assert end(events).exit_code == ExitCode.BAD_INPUT
    assert list((tmp_path / "merged").iterdir()) == []


def test_a_merge_into_a_folder_goes_on_too(go, tmp_path):
    error = end(go(plan_of(to_folder(tmp_path, KILLED)))).error
    assert f"3.0 MiB in {tmp_path}/merged.partial" in error["fix"]
    assert error["detail"][0].endswith(f" --out {tmp_path}/merged --discard")
    assert end(go(plan_of(to_folder(tmp_path)))).outcome == "ok"
    assert not (tmp_path / "merged.partial").exists()


def test_a_folder_on_a_disk_too_small_is_refused_with_what_helps_there(go, tmp_path):
    error = end(go(plan_of(to_folder(tmp_path, bytes=1 << 60)))).error
    assert error["code"] == "disk.too-little"
    assert "--out on a larger disk" in error["fix"]
    assert not (tmp_path / "merged.partial").exists()


@pytest.mark.parametrize("body", [full("merge.not-finite"), HALF + STOPPABLE])
def test_nothing_of_a_failed_or_cancelled_merge_is_left_beside_the_folder(go, tmp_path, body):
    go(plan_of(to_folder(tmp_path, body)), until=StepPhase)
    assert not (tmp_path / "merged.partial").exists()
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("before", [None, WHOLE, full("merge.not-finite")])
def test_a_partial_folder_that_is_not_quantuis_is_left_alone(go, tmp_path, before):
    if before is not None:
        go(plan_of(to_folder(tmp_path, before)))
        shutil.rmtree(tmp_path / "merged", ignore_errors=True)
    mine = tmp_path / "merged.partial"
    mine.mkdir()
    (mine / "thesis").write_text("x")
    error = end(go(plan_of(to_folder(tmp_path)))).error
    assert error["code"] == "merge.foreign-partial"
    assert str(mine) in error["what"]
    assert (mine / "thesis").read_text() == "x"


def test_cancelling_a_merge_leaves_no_artifact(go, tmp_path):
    body = "Path(job['out']).mkdir(); Path(job['out'], 'half').write_text('x')" + STOPPABLE
    events = go(plan_of(merge_step(tmp_path, body)), until=StepPhase)
    assert (end(events).outcome, end(events).exit_code) == ("cancelled", ExitCode.CANCELLED)
    assert artifacts() == []


def test_cancelling_while_vllm_loads_stops_it(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(then="hang"))), until=StepPhase)
    assert end(events).outcome == "cancelled"
    assert of(ServerReady, events) == []


def test_a_server_is_held_until_somebody_stops_it_and_that_is_a_success(go, tmp_path):
    plan = plan_of(serve_step(tmp_path), check_step())
    events = go(plan, hold=True, until=Answered)
    assert end(events).outcome in {"ok", "cancelled"}  # cancelled while the check still ends
    cancel = threading.Event()
    runner = Runner(plan, cancel, hold_server=True)
    held = []
    for event in runner.run():
        held.append(event)
        if isinstance(event, Notice) and "until stopped" in event.text:
            cancel.set()
    assert (end(held).outcome, end(held).exit_code) == ("ok", 0)


def test_a_server_and_an_engine_that_ignore_signals_are_killed(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(stubborn=True)), check_step()))
    assert end(events).outcome == "ok"


def test_a_port_in_use_is_told_before_anything_is_merged(go, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serve = serve_step(tmp_path, port=taken.getsockname()[1])
        events = go(plan_of(merge_step(tmp_path, "raise SystemExit(1)"), serve))
    assert end(events).error["code"] == "serve.port-in-use"
    assert end(events).exit_code == ExitCode.DOES_NOT_FIT
    assert of(StepStarted, events) == []


def test_an_api_key_that_is_not_set_is_told_before_anything_is_merged(go, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    serve = serve_step(tmp_path, api_key_env="NO_SUCH_KEY")
    events = go(plan_of(merge_step(tmp_path, "raise SystemExit(1)"), serve))
    assert end(events).error["code"] == "serve.no-api-key"
    assert of(StepStarted, events) == []


def test_the_api_key_reaches_server_and_check_and_no_command_line_or_record(
    go, tmp_path, monkeypatch
):
    key = "sk-never-to-be-seen-0123456789"
    monkeypatch.setenv("MY_KEY", key)
    shown = []

    class Watching(threading.Event):
        """Looks at every command line whenever the run asks whether it is cancelled."""

        def is_set(self):
            shown.extend(carrying(key.encode(), "cmdline"))
            return super().is_set()

    seen = tmp_path / "seen"
    script = Script(seen=str(seen), key=key)
    runner = Runner(
        plan_of(serve_step(tmp_path, script, api_key_env="MY_KEY"), check_step()),
        Watching(),
        hold_server=False,
    )
    events = list(runner.run())
    assert end(events).outcome == "ok"
    assert f"Bearer {key}" in seen.read_text()
    assert shown == []
    for path in runner.folder.path.iterdir():
        assert key not in path.read_text()


def test_a_server_that_exits_0_unasked_has_crashed(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(then="exit", status=0))))
    assert end(events).exit_code == ExitCode.ENGINE
    assert "exit status 0" in end(events).error["what"]


def test_a_server_killed_by_a_signal_says_which(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(then="exit", status=-9))))
    assert "signal 9" in end(events).error["what"]


def test_a_server_that_fails_tells_the_cause_and_the_log(go, tmp_path):
    line = "(EngineCore pid=7) ERROR 11-21 09:42:27 [core.py:1] "
    script = Script(
        lines=[line + "torch.OutOfMemoryError: CUDA out of memory."], then="exit", status=1
    )
    error = end(go(plan_of(serve_step(tmp_path, script)))).error
    assert error["code"] == "serve.out-of-memory"
    assert any(detail.endswith("serve.log") for detail in error["detail"])


def test_a_server_that_never_gets_healthy_is_given_up(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(healthy=False), timeout_s=2.0)))
    assert end(events).error["code"] == "serve.timeout"
    assert end(events).exit_code == ExitCode.ENGINE


def test_a_server_that_logs_nothing_is_found_ready_by_its_health(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(log="")), check_step()))
    assert len(of(ServerReady, events)) == 1


def test_a_server_that_dies_while_it_is_held_is_an_error(go, tmp_path):
    # The check asks /v1/models, /v1/completions and /metrics; a fourth request is this test's.
    import urllib.request

    serve = serve_step(tmp_path, Script(die_after=3, status=0))
    runner = Runner(plan_of(serve, check_step()), threading.Event(), hold_server=True)
    events = []
    for event in runner.run():
        events.append(event)
        if isinstance(event, Notice) and "until stopped" in event.text:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{serve.port}/v1/models", timeout=60)
    assert end(events).outcome == "failed"
    assert end(events).error["what"].startswith("The server ended while it served.")


def test_a_check_that_fails_stops_the_server_and_fails_the_run(go, tmp_path):
    events = go(plan_of(serve_step(tmp_path, Script(chunks=[])), check_step()), hold=True)
    assert end(events).exit_code == ExitCode.CHECK_FAILED
    assert end(events).error["code"] == "check.empty-answer"


@pytest.mark.parametrize("kind", [RunStarted, StepPhase, ServerReady, Answered, StepFinished])
def test_closing_the_iterator_at_any_moment_leaves_nothing(tmp_path, kind, capfd):
    plan = plan_of(serve_step(tmp_path), check_step())
    with opened(plan) as (runner, events):
        next(event for event in events if isinstance(event, kind))
        if kind is RunStarted:
            (runner.folder.path / "owner.pid").unlink()
    assert "Traceback" not in capfd.readouterr().err


def test_closing_the_iterator_while_the_server_stops_leaves_nothing(tmp_path):
    plan = plan_of(serve_step(tmp_path, Script(stubborn=True)))
    with opened(plan, hold_server=False) as (_, events):
        for event in events:
            if isinstance(event, StepFinished):
                break
        next(events)


def test_an_artifact_store_that_cannot_be_written_is_one_clear_error(go, tmp_path, own_home):
    own_home.mkdir()
    (own_home / "artifacts").write_text("a file stands in the way")
    events = go(plan_of(merge_step(tmp_path)))
    assert [event.final for event in of(StepFailed, events)] == [True]
    assert end(events).error["code"] == "run.os-error"
    assert "artifacts" in end(events).error["what"]


def test_the_merged_model_is_deleted_after_a_run_that_served_it_when_asked(go, tmp_path):
    go(plan_of(merge_step(tmp_path), serve_step(tmp_path), after_run="delete-merged"))
    assert artifacts() == []


def test_the_merged_model_is_kept_when_the_server_never_got_ready(go, tmp_path):
    serve = serve_step(tmp_path, Script(then="hang"))
    plan = plan_of(merge_step(tmp_path), serve, after_run="delete-merged")
    go(plan, until=StepPhase)
    assert artifacts() == [merge_step(tmp_path).artifact.folder]


def test_preparing_only_never_deletes_what_it_made(go, tmp_path):
    go(plan_of(merge_step(tmp_path), after_run="delete-merged"))
    assert artifacts() == [merge_step(tmp_path).artifact.folder]
