"""A run keeps what its load took beside what had been predicted, for the next estimate."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from run_plans import check_step, merge_step, plan_of, serve_step

from quantui.domain.events import MemorySample
from quantui.domain.fitting.calibration import Expectation, Figures, Load
from quantui.domain.units import GIB
from quantui.runtime.load_record import keep_load
from quantui.runtime.observations import observations_file, read_observations
from quantui.runtime.recorder import RunFolder
from quantui.runtime.run_context import RunContext
from quantui.runtime.runner import Runner

LOAD = Load("1x card", "vllm-cuda", "0.32.0", "none", "content", tensor_parallel=2)
EXPECTED = Expectation(
    load=LOAD,
    predicted=Figures(weights=2 * GIB, kv_cache=8 * GIB, rest=GIB, kv_tokens=1000),
    on_cpu=False,
    kv_cache_given=False,
    device_bytes=16 * GIB,
    gpus=(0, 1),
)
GPU_LOG = [
    "(Worker_TP0 pid=1) INFO 11-21 09:42:26 [x.py:1] Model loading took 2.5 GiB memory and 3 s",
    "(Worker_TP1 pid=2) INFO 11-21 09:42:26 [x.py:1] Model loading took 2.25 GiB memory and 3 s",
    "(Worker_TP0 pid=1) INFO 11-21 09:42:27 [x.py:1] Available KV cache memory: 7.5 GiB",
    "(Worker_TP1 pid=2) INFO 11-21 09:42:27 [x.py:1] Available KV cache memory: 7.75 GiB",
    "(Worker_TP0 pid=1) INFO 11-21 09:42:29 [x.py:1] Graph capturing finished in 2 secs, took 0.25 GiB",
]
NO_ROOM = [
    *GPU_LOG[:2],
    "(Worker_TP0 pid=1) INFO 11-21 09:42:27 [x.py:1] Available KV cache memory: -1.5 GiB",
    "(EngineCore pid=3) ERROR 11-21 09:42:27 [core.py:1] ValueError: No available memory for the "
    "cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
]


def run(plan, expectation=EXPECTED):
    list(Runner(replace(plan, expectation=expectation), threading.Event(), hold_server=False).run())
    return read_observations()


def test_a_load_is_kept_with_the_figures_of_vllms_own_log(tmp_path):
    script = Script(lines=GPU_LOG, chunks=[" a"] * 20)
    (seen,) = run(plan_of(serve_step(tmp_path, script), check_step()))
    assert (seen.expected, seen.outcome) == (EXPECTED, "ok")
    assert seen.measured.weights == 2.5 * GIB
    assert seen.measured.kv_cache == 7.5 * GIB
    assert seen.measured.graphs == 0.25 * GIB
    assert seen.measured.kv_tokens == 32768
    assert seen.load_seconds > 0
    assert seen.tokens_per_s > 0
    assert seen.first_token_s > 0


def test_the_speed_of_a_short_answer_is_not_kept(tmp_path):
    (seen,) = run(plan_of(serve_step(tmp_path), check_step()))
    assert seen.tokens_per_s is None


def test_a_model_that_did_not_fit_is_kept_with_what_was_lacking(tmp_path):
    script = Script(log="", lines=NO_ROOM, then="exit", status=1)
    (seen,) = run(plan_of(serve_step(tmp_path, script), check_step()))
    assert (seen.outcome, seen.measured.kv_cache) == ("out-of-memory", -1.5 * GIB)
    assert seen.load_seconds is None


def test_a_load_counts_also_when_its_check_fails(tmp_path):
    script = Script(lines=GPU_LOG, error="boom")
    (seen,) = run(plan_of(serve_step(tmp_path, script), check_step()))
    assert (seen.outcome, seen.measured.weights) == ("ok", 2.5 * GIB)


def test_other_failures_tell_nothing_of_memory(tmp_path):
    script = Script(log="", lines=["ValueError: no such thing"], then="exit", status=1)
    assert run(plan_of(serve_step(tmp_path, script), check_step())) == ()


def test_a_run_that_serves_nothing_keeps_nothing(tmp_path):
    assert run(plan_of(merge_step(tmp_path))) == ()


def test_an_adapter_beside_its_base_is_not_what_was_estimated(tmp_path):
    body = "raise wire.WorkerError('merge.not-enough-memory', 'No room.', exit_code=3)"
    unmerged = serve_step(tmp_path, Script(lines=GPU_LOG))
    argv = ("/nonexistent", "merged")
    serve = serve_step(tmp_path, port=unmerged.port, argv=argv, lora_argv=unmerged.argv)
    merge = merge_step(tmp_path, body, serve_lora_on_failure=True)
    plan = replace(plan_of(merge, serve, check_step()), expectation=EXPECTED)
    events = list(Runner(plan, threading.Event(), hold_server=False).run())
    assert events[-1].outcome == "ok"
    assert read_observations() == ()


def test_a_plan_that_expects_nothing_keeps_nothing(tmp_path):
    assert run(plan_of(serve_step(tmp_path), check_step()), None) == ()


def test_a_record_that_cannot_be_written_fails_no_run(tmp_path, own_home):
    own_home.mkdir()
    observations_file().mkdir()
    plan = replace(plan_of(serve_step(tmp_path), check_step()), expectation=EXPECTED)
    events = list(Runner(plan, threading.Event(), hold_server=False).run())
    assert events[-1].outcome == "ok"


# What the sampler saw


@pytest.fixture
def context():
    return RunContext(RunFolder.create(), threading.Event())


def sampled(context, *samples):
    found = [
        MemorySample(at=0.0, tree_bytes=tree, ram_available_bytes=None, gpus=gpus)
        for tree, gpus in samples
    ]
    context._sampler.drain = lambda: found
    context.samples()


def test_gpu_memory_is_what_the_card_gained_since_the_server_started(context):
    sampled(context, (None, ((0, 3, 99), (1, 5, 99))))
    context.before_server()
    sampled(context, (None, ((0, 20, 99), (1, 40, 99))), (None, ((0, 23, 99), (1, 30, 99))))
    seen = keep_load(EXPECTED, context, {}, "ok")
    assert seen.measured.peak == 25


def test_cards_the_model_is_not_on_do_not_count(context):
    context.before_server()
    sampled(context, (None, ((0, 3, 99), (1, 5, 99))), (None, ((0, 4, 99), (1, 90, 99))))
    seen = keep_load(replace(EXPECTED, gpus=(0,)), context, {}, "ok")
    assert seen.measured.peak == 1


def test_on_the_cpu_it_is_the_ram_of_the_servers_processes_for_one_rank(context):
    sampled(context, (999, ()))
    context.before_server()
    sampled(context, (10, ()), (40, ()))
    seen = keep_load(replace(EXPECTED, on_cpu=True, gpus=()), context, {}, "ok")
    assert seen.measured.peak == 20


def test_without_a_sample_it_is_unknown(context):
    for on_cpu in (True, False):
        seen = keep_load(replace(EXPECTED, on_cpu=on_cpu), context, {}, "ok")
        assert seen.measured.peak is None
