"""vLLM's log, line by line: who wrote it, which phase it announces, which figure it tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantui.domain.load_log import (
    Figure,
    LogRecord,
    ShardProgress,
    figures_of,
    parse_line,
    phase_of,
    shards_of,
)

LOGS = Path(__file__).parents[1] / "fixtures/logs"


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (
            "(EngineCore pid=12) INFO 11-20 15:40:18 [core.py:133] Initializing a V1 LLM engine",
            LogRecord("EngineCore", "INFO", "Initializing a V1 LLM engine"),
        ),
        (
            "(Worker_TP1 pid=9) ERROR 11-20 15:40:18 [worker.py:1] ValueError: (x pid=3) no",
            LogRecord("Worker_TP1", "ERROR", "ValueError: (x pid=3) no"),
        ),
        (
            "(APIServer pid=3) Traceback (most recent call last):",
            LogRecord("APIServer", "", "Traceback (most recent call last):"),
        ),
        (
            "INFO 11-20 15:40:18 [api.py:1] vLLM API server version 0.32.0",
            LogRecord("", "INFO", "vLLM API server version 0.32.0"),
        ),
        ("INFO:     Application startup complete.",
         LogRecord("", "", "INFO:     Application startup complete.")),
        ("", LogRecord("", "", "")),
        (
            "\x1b[0;36m(EngineCore pid=12)\x1b[0;0m INFO 11-20 15:40:18 [core.py:1] hello",
            LogRecord("EngineCore", "INFO", "hello"),
        ),
    ],
)  # fmt: skip
def test_a_line_is_split_into_its_process_level_and_message(line, record):
    assert parse_line(line) == record


def test_the_log_of_a_real_start_on_the_cpu_tells_its_phases_in_order():
    lines = (LOGS / "vllm_0.32_cpu_ready.log").read_text().splitlines()
    phases = [phase.name for line in lines if (phase := phase_of(parse_line(line).message))]
    assert phases == [
        "starting",
        "config",
        "engine",
        "loading",
        "kv-cache",
        "kv-cache",
        "ready-soon",
        "ready-soon",
    ]


def test_the_log_of_a_real_start_on_the_cpu_tells_these_figures():
    lines = (LOGS / "vllm_0.32_cpu_ready.log").read_text().splitlines()
    figures = [figure for line in lines for figure in figures_of(parse_line(line).message)]
    assert [(figure.name, figure.value) for figure in figures] == [
        ("kv_cache_reserved", 0.06),
        ("kv_cache_tokens", 32768),
        ("engine_init_seconds", 0.11),
    ]


@pytest.mark.parametrize(
    ("message", "name", "value", "unit"),
    [
        ("Model loading took 14.9888 GiB memory and 3.2 seconds", "weight_memory", 14.9888, "GiB"),
        ("Available KV cache memory: 51.38 GiB", "kv_cache_memory", 51.38, "GiB"),
        ("Available KV cache memory: -1.25 GiB", "kv_cache_memory", -1.25, "GiB"),
        (
            "Initial free memory 78.6 GiB, reserved 4.0 GiB memory for KV Cache as specified by "
            "kv_cache_memory_bytes config and skipped memory profiling.",
            "kv_cache_reserved",
            4.0,
            "GiB",
        ),
        (
            "Auto set (5.21/7.84) GiB for KV cache on node 0, with 6.1 GiB requested memory",
            "kv_cache_reserved",
            5.21,
            "GiB",
        ),
        ("GPU KV cache size: 1,933,472 tokens", "kv_cache_tokens", 1933472, "tokens"),
        ("Graph capturing finished in 21 secs, took 0.38 GiB", "graph_memory", 0.38, "GiB"),
        ("Loading weights took 0.19 seconds", "weight_load_seconds", 0.19, "s"),
    ],
)
def test_figures_that_a_gpu_tells_are_read(message, name, value, unit):
    (figure,) = figures_of(message)
    assert isinstance(figure, Figure)
    assert (figure.name, figure.value, figure.unit) == (name, value, unit)


def test_what_the_profile_run_found_is_one_line_of_several_figures():
    # The message of vllm/v1/worker/gpu_worker.py, compile_or_warm_up_model (0.32).
    message = (
        "Free memory on device (78.6/79.1 GiB) on startup. Desired GPU memory utilization is "
        "(0.92, 72.8 GiB). Actual usage is 15.3 GiB for consumed memory (weights + non-torch), "
        "5.6 GiB for peak activation, and 0.4 GiB for CUDAGraph memory. Replace "
        "gpu_memory_utilization config with `--kv-cache-memory=1` (51.2 GiB) to fit into requested "
        "memory, or `--kv-cache-memory=2` (57.1 GiB) to fully utilize gpu memory. Current kv cache "
        "memory in use is 51.4 GiB."
    )
    assert {figure.name: figure.value for figure in figures_of(message)} == {
        "requested_memory": 72.8,
        "consumed_memory": 15.3,
        "peak_activation_memory": 5.6,
        "graph_memory": 0.4,
    }


def test_of_several_workers_the_one_with_the_least_room_counts():
    (weights,) = figures_of("Model loading took 14.5 GiB memory and 3.2 seconds")
    assert (weights.among(None), weights.among(15.0), weights.among(14.0)) == (14.5, 15.0, 14.5)
    (cache,) = figures_of("Available KV cache memory: 20.0 GiB")
    assert (cache.among(None), cache.among(19.0), cache.among(21.0)) == (20.0, 19.0, 20.0)
    (seconds,) = figures_of("Loading weights took 2.0 seconds")
    assert seconds.among(9.0) == 2.0


@pytest.mark.parametrize(
    ("message", "phase"),
    [
        ("Dynamo bytecode transform time: 5.1 s", "compiling"),
        ("Compiling a graph for compile range (1, 2048) takes 11 s", "compiling"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 3%", "graphs"),
        ("Model loading took 14.9 GiB memory", "loaded"),
    ],
)
def test_phases_that_only_a_gpu_has_are_recognised(message, phase):
    assert phase_of(message).name == phase


def test_the_shard_bar_is_progress():
    line = "Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.0it/s]"
    assert shards_of(line) == ShardProgress(1, 4)


def test_an_ordinary_line_is_neither_phase_nor_figure_nor_progress():
    message = "Using max model len 512"
    assert (phase_of(message), figures_of(message), shards_of(message)) == (None, (), None)
