"""A failed start is told by its root cause, in a person's words, with the fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantui.domain.diagnose import diagnose, root_cause
from quantui.domain.errors import ExitCode

LOGS = Path(__file__).parents[1] / "fixtures/logs"
READY = (LOGS / "vllm_0.32_cpu_ready.log").read_text().splitlines()
WORKER = "(Worker pid=3) ERROR 11-20 15:40:18 [worker.py:1] "
ENGINE = "(EngineCore pid=2) ERROR 11-20 15:40:18 [core.py:1] "
SERVER = "(APIServer pid=1) "


def told(*lines, exit_code=1):
    return diagnose(list(lines), exit_code=exit_code, log="/runs/1/serve.log")


def test_the_innermost_process_has_the_root_cause():
    lines = (LOGS / "worker_out_of_memory.log").read_text().splitlines()
    cause = root_cause(lines)
    assert cause.process == "Worker"
    assert cause.text.startswith("torch.OutOfMemoryError: CUDA out of memory.")


def test_out_of_memory_in_a_worker_does_not_fit():
    error = told(*(LOGS / "worker_out_of_memory.log").read_text().splitlines())
    assert (error.code, error.exit_code) == ("serve.out-of-memory", ExitCode.DOES_NOT_FIT)


def test_the_first_exception_of_a_process_is_the_cause_not_the_one_raised_from_it():
    cause = root_cause([
        ENGINE + "ValueError: the real one",
        ENGINE,
        ENGINE + "The above exception was the direct cause of the following exception:",
        ENGINE + "RuntimeError: raised from it",
    ])  # fmt: skip
    assert cause.text == "ValueError: the real one"


@pytest.mark.parametrize(
    "wrapper",
    [
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "Exception: WorkerProc initialization failed due to an exception in a background process.",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
        "KeyboardInterrupt",
        "SystemExit: 0",
        "asyncio.exceptions.CancelledError",
        "FutureWarning: torch.distributed.reduce_op is deprecated",
    ],
)
def test_a_wrapper_alone_is_no_cause(wrapper):
    assert root_cause([SERVER + "Traceback (most recent call last):", SERVER + wrapper]) is None


def test_a_message_of_several_lines_is_kept_together():
    cause = root_cause([
        SERVER + "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig",
        SERVER + "  Value error, User-specified max_model_len (9) is greater than the derived",
        "unrelated",
    ])  # fmt: skip
    assert len(cause.lines) == 2


def test_an_exception_without_a_message_counts():
    assert root_cause([WORKER + "AssertionError"]).text == "AssertionError"


def test_a_start_without_an_error_has_no_cause():
    assert root_cause(READY) is None


@pytest.mark.parametrize(
    ("line", "code", "exit_code"),
    [
        ("ValueError: Free memory on device cuda:0 (3.2/14.7 GiB) on startup is less than desired GPU "
         "memory utilization (0.92, 13.6 GiB).", "serve.memory-at-start", 3),
        ("ValueError: No available memory for the cache blocks. Try increasing", "serve.no-room-for-kv-cache", 3),
        ("ValueError: To serve at least one request with the models's max seq len (8192), (1.0 GiB KV cache "
         "is needed, which is larger than the available KV cache memory (0.5 GiB).", "serve.no-room-for-kv-cache", 3),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate "
         "memory: you tried to allocate 99 bytes.", "serve.out-of-memory", 3),
        ("ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len "
         "(max_position_embeddings=512.0)", "serve.context-too-long", 3),
        ("ValueError: Model architectures ['XForCausalLM'] are not supported for now.",
         "serve.unsupported-architecture", 3),
        ("ValueError: Unknown quantization method: foo. Must be one of [...]", "serve.unsupported-method", 3),
        ("ValueError: Total number of attention heads (14) must be divisible by tensor parallel size (4).",
         "serve.tensor-parallel", 3),
        ("OSError: [Errno 98] Address already in use", "serve.port-in-use", 3),
        ("ValueError: The repository x contains custom code which must be executed to correctly load the model.",
         "serve.remote-code", 2),
        ("OSError: [Errno 28] No space left on device", "serve.disk-full", 3),
        ("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
         "serve.bad-checkpoint", 2),
        ("ImportError: libnuma.so.1: cannot open shared object file: No such file", "serve.missing-shared-library", 4),
    ],
)  # fmt: skip
def test_a_known_failure_gets_its_own_code_and_exit_code(line, code, exit_code):
    error = told(
        *READY[:20], ENGINE + line, SERVER + "RuntimeError: Engine core initialization failed."
    )
    assert (error.code, int(error.exit_code)) == (code, exit_code)
    assert error.fix


def test_a_refused_argument_is_bad_input_though_it_is_no_exception():
    error = told(
        "usage: api_server.py [-h]",
        "api_server.py: error: unrecognized arguments: --x",
        exit_code=2,
    )
    assert (error.code, error.exit_code) == ("serve.bad-argument", ExitCode.BAD_INPUT)


def test_a_failure_nobody_knows_is_quoted():
    error = told(WORKER + "FooError: something new")
    assert (error.code, error.exit_code) == ("serve.failed", ExitCode.ENGINE)
    assert error.why == "FooError: something new"


def test_the_configuration_that_vllm_repeats_is_not_taken_for_a_cause():
    # The start names tensor_parallel_size and trust_remote_code, as every start does.
    assert any("trust_remote_code" in line for line in READY)
    assert told(*READY, exit_code=0).code == "serve.failed"


def test_an_end_that_nobody_asked_for_is_a_crash_even_with_exit_status_0():
    error = told(*READY, exit_code=0)
    assert "exit status 0" in error.what
    assert error.exit_code == ExitCode.ENGINE


def test_a_kill_is_told_with_who_probably_did_it():
    error = told(*READY, exit_code=-9)
    assert "signal 9" in error.what
    assert "out-of-memory killer" in error.why


def test_a_crash_in_native_code_is_told_as_one():
    assert "native code" in told(exit_code=-11).why


def test_the_log_is_always_named():
    assert told().detail[-1] == "log: /runs/1/serve.log"


def test_a_very_long_message_is_cut():
    assert len(told(WORKER + "FooError: " + "x" * 10_000).why) <= 300


def test_every_known_failure_says_why_and_how_to_mend_it():
    import tomllib

    data = Path(__file__).parents[2] / "quantui/data/failures.toml"
    failures = tomllib.loads(data.read_text())["failure"]
    for failure in failures:
        re.compile(failure["pattern"])
        assert failure["what"], failure["code"]
        assert failure["why"], failure["code"]
        assert failure["fix"], failure["code"]
        ExitCode(failure["exit_code"])
