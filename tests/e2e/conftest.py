"""What the end-to-end tests share: the workers' interpreter, and a demo model made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import pytest
from fixtures.deployment import Deployment, deploy
from fixtures.merged_zoo import MergedZoo, merge_zoo
from fixtures.quantized_rows import Row, table
from fixtures.worker_runs import WORKERS, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.runtime.engines import Engine

MAKING_THE_DEMO = 1500
"""Seconds: two minutes of two quiet cores, and far more on a machine that does other things too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first may have to make the demo."""
    for item in items:
        if "demo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(MAKING_THE_DEMO + 600))


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> Worker:
    """Workers run by QUANTUI_TEST_WORKER_PYTHON, which needs no vLLM, or else by the real engine."""
    python = os.environ.get("QUANTUI_TEST_WORKER_PYTHON")
    return Worker(python or str(request.getfixturevalue("engine").python))


@pytest.fixture(scope="session")
def demo(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo folder, made by its worker and kept until the worker's sources change."""
    digest = hashlib.sha256()
    for source in (WORKERS / "make_demo.py", *sorted((WORKERS / "demo_model").glob("*.py"))):
        digest.update(source.read_bytes())
    cache = Path(
        os.environ.get("QUANTUI_TEST_CACHE") or platformdirs.user_cache_dir("quantui-tests")
    )
    out = cache / f"demo-{digest.hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    # Two test sessions at once make it once.
    with (cache / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            job = {"out": str(out)}
            folder = tmp_path_factory.mktemp("demo")
            assert worker.run("make_demo", job, folder, timeout=MAKING_THE_DEMO).result
    return out


@pytest.fixture(scope="session")
def zoo(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> MergedZoo:
    """Tiny models and adapters of every kind, merged once by streaming."""
    return merge_zoo(worker, tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def deployment(demo: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The main job, done once: merged, quantized by bitsandbytes, served, answered, stopped."""
    return deploy(demo, engine, tmp_path_factory.mktemp("deployment"))


_QUANTIZED = pytest.StashKey[list[tuple[Row, dict[str, Any]]]]()


@pytest.fixture
def tell_quantized(request: pytest.FixtureRequest) -> Callable[[Row, dict[str, Any]], None]:
    """Put a quantized model into the table that the session ends with."""
    rows = request.config.stash.setdefault(_QUANTIZED, [])
    return lambda row, result: rows.append((row, result))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of the methods that were made."""
    rows = config.stash.get(_QUANTIZED, [])
    if rows:
        terminalreporter.section("the demo's model, quantized")
        terminalreporter.write_line(table(rows))
