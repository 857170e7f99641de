"""A worker's word becomes events, its end a result or one clear error. Workers are real programs."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import carrying

import quantui.engines.workers as workers
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import LogLine, MemorySample, Notice, StepPhase, StepProgress
from quantui.runtime.recorder import RunFolder
from quantui.runtime.run_context import RunContext
from quantui.runtime.worker_run import run_worker

WORKERS = next(iter(workers.__path__))


@pytest.fixture
def cancel():
    return threading.Event()


@pytest.fixture
def context(cancel):
    made = RunContext(RunFolder.create(), cancel)
    yield made
    made.close()
    assert carrying(made.folder.run_id.encode()) == []


@pytest.fixture
def worker(tmp_path):
    """The argv of a worker program whose ``main`` has the given body."""

    def write(body, *, bare=False):
        program = tmp_path / "worker.py"
        lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
        program.write_text(
            body
            if bare
            else "import os, signal, sys, time\n"
            f"sys.path.insert(0, {WORKERS!r})\n"
            f"import quantui_wire as wire\n\ndef main(job):\n{lines}\n\nwire.run(main)\n"
        )
        return [sys.executable, str(program)]

    return write


def follow(context, argv, job=None, **options):
    """(events, result) of a worker that is run to its end."""
    events = []
    running = run_worker(context, "step", argv, job or {}, **options)
    while True:
        try:
            events.append(next(running))
        except StopIteration as end:
            return events, end.value


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_a_job_goes_in_and_a_result_comes_out(context, worker):
    _, result = follow(context, worker("return {'sum': job['a'] + job['b']}"), {"a": 2, "b": 3})
    assert result == {"sum": 5}


def test_progress_phases_and_notices_become_events_in_their_order(context, worker):
    events, _ = follow(
        context,
        worker("""
wire.phase("reading")
wire.progress(1, 4, unit="shards", message="a")
wire.progress(2, None, unit="shards")
wire.notice("slow disk", level="warning")
return {}
"""),
    )
    told = [event for event in events if isinstance(event, (StepPhase, StepProgress, Notice))]
    assert [(type(event).__name__, event.step) for event in told] == [
        ("StepPhase", "step"),
        ("StepProgress", "step"),
        ("StepProgress", "step"),
        ("Notice", "step"),
    ]
    assert (told[1].done, told[1].total, told[1].unit, told[1].message) == (1, 4, "shards", "a")
    assert told[2].total is None
    assert (told[3].level, told[3].text) == ("warning", "slow disk")


def test_what_a_library_prints_is_a_log_line_and_no_event(context, worker):
    events, result = follow(
        context, worker("""print('{"type": "result", "fake": 1}')\nreturn {'real': 1}""")
    )
    assert result == {"real": 1}
    assert [line.text for line in of(LogLine, events)] == ['{"type": "result", "fake": 1}']


def test_a_last_line_without_an_end_is_not_lost(context, worker):
    events, _ = follow(context, worker("sys.stdout.write('no newline')\nreturn {}"))
    assert [line.text for line in of(LogLine, events)] == ["no newline"]


def test_a_workers_own_error_is_raised_with_its_words_and_the_log(context, worker):
    argv = worker("raise wire.WorkerError('merge.x', 'What.', 'Why.', 'Fix.', exit_code=3)")
    with pytest.raises(QuantuiError) as raised:
        follow(context, argv)
    error = raised.value
    assert (error.code, error.what, error.why, error.fix, error.exit_code) == (
        "merge.x",
        "What.",
        "Why.",
        "Fix.",
        ExitCode.DOES_NOT_FIT,
    )
    assert error.detail[-1] == f"log: {context.folder.log('step')}"


def test_an_exception_names_itself_and_leaves_its_traceback_in_the_log(context, worker):
    with pytest.raises(QuantuiError) as raised:
        follow(context, worker("raise KeyError('lm_head')"))
    assert raised.value.code == "worker.crashed"
    assert "KeyError" in raised.value.what
    assert "lm_head" in raised.value.why
    assert "Traceback" in context.folder.log("step").read_text()


def test_an_error_with_an_exit_code_nobody_knows_is_the_engines(context, worker):
    with pytest.raises(QuantuiError) as raised:
        follow(context, worker("raise wire.WorkerError('x.y', 'What.', exit_code=77)"))
    assert raised.value.exit_code == ExitCode.ENGINE


def test_a_worker_killed_like_by_the_kernel_does_not_fit(context, worker):
    with pytest.raises(QuantuiError) as raised:
        follow(context, worker("print('last words', flush=True)\nos.kill(os.getpid(), 9)"))
    error = raised.value
    assert (error.code, error.exit_code) == ("worker.died", ExitCode.DOES_NOT_FIT)
    assert "memory" in error.why
    assert "last words" in error.detail


def test_a_worker_that_crashes_in_native_code_names_the_signal(context, worker):
    with pytest.raises(QuantuiError) as raised:
        follow(context, worker("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert raised.value.why == "Signal 11 ended it."
    assert raised.value.exit_code == ExitCode.ENGINE


def test_a_worker_that_exits_without_a_word_is_no_success(context, worker):
    with pytest.raises(QuantuiError, match="without giving a result"):
        follow(context, worker("sys.stdout.flush()\nos._exit(0)"))


def test_a_result_of_a_worker_that_then_fails_does_not_count(context, worker):
    body = "wire.emit({'type': 'result', 'ok': 1})\nos._exit(9)"
    with pytest.raises(QuantuiError) as raised:
        follow(context, worker(body))
    assert raised.value.why == "It ended with exit status 9."


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe\x00 not json",
        b"[1, 2]",
        b'"text"',
        b'{"type": "progress"}',
        b'{"type": "progress", "done": "many", "total": 3}',
        b'{"type": "progress", "done": NaN}',
        b'{"type": "notice"}',
        b'{"type": "from a later version", "x": 1}',
        b"[" * 100_000,
        b"",
    ],
    ids=repr,
)
def test_garbage_on_the_events_pipe_does_not_stop_the_run(context, worker, garbage):
    # Through a file: 100,000 brackets are too many for a command line.
    path = context.folder.path / "garbage"
    path.write_bytes(garbage + b"\n")
    body = "os.write(int(os.environ['QUANTUI_EVENTS_FD']), open(job['at'], 'rb').read())\nreturn {}"
    events, result = follow(context, worker(body), {"at": str(path)})
    assert result == {}
    assert of(StepProgress, events) == []


def test_a_cancelled_worker_may_clean_up_and_the_run_is_cancelled(context, worker, cancel):
    argv = worker("""
def leave(*_):
    print("cleaned", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, leave)
wire.phase("busy")
time.sleep(600)
""")
    running = run_worker(context, "step", argv, {})
    with pytest.raises(QuantuiError) as raised:
        for event in running:
            if isinstance(event, StepPhase):
                cancel.set()
    assert (raised.value.code, raised.value.exit_code) == ("run.cancelled", ExitCode.CANCELLED)
    assert context.folder.log("step").read_text() == "cleaned\n"


def test_closing_the_iterator_leaves_no_process(context, worker):
    argv = worker("wire.phase('busy')\nimport subprocess\nsubprocess.run(['sleep', '600'])")
    running = run_worker(context, "step", argv, {})
    assert isinstance(next(event for event in running if isinstance(event, StepPhase)), StepPhase)
    assert carrying(context.folder.run_id.encode())
    running.close()
    assert carrying(context.folder.run_id.encode()) == []


def test_an_interpreter_that_is_not_there_is_named(context):
    with pytest.raises(QuantuiError) as raised:
        follow(context, ["/nonexistent/python", "worker.py"])
    assert raised.value.code == "engine.cannot-start"


def test_an_environment_variable_can_be_given(context, worker):
    _, result = follow(context, worker("return {'key': os.environ['KEY']}"), env={"KEY": "k"})
    assert result == {"key": "k"}


def test_the_memory_of_a_worker_is_sampled_while_it_runs(context, worker):
    context.start()
    argv = worker("held = b'x' * (64 << 20)\nwire.phase('holding')\ninput_ = time.sleep(600)")
    for event in run_worker(context, "step", argv, {}):
        if isinstance(event, MemorySample) and (event.tree_bytes or 0) > 64 << 20:
            assert event.ram_available_bytes > 0
            break
    else:
        pytest.fail("no sample held the worker's memory")
    assert context.peak_tree_bytes > 64 << 20


def test_many_events_at_once_all_arrive(context, worker):
    body = "for n in range(5000):\n    wire.progress(n, 5000, unit='tensors', message='x' * 50)\nreturn {}"
    events, _ = follow(context, worker(body))
    assert [event.done for event in of(StepProgress, events)] == list(range(5000))


def test_a_worker_starts_in_the_runs_folder(context, worker):
    _, result = follow(context, worker("return {'at': os.getcwd()}"))
    assert result["at"] == os.path.realpath(context.folder.path)
