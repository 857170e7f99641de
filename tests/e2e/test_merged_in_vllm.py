"""vLLM loads what streaming made and answers as base and unmerged adapter do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.worker_runs import Worker

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def made(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    Worker(engine.python).program(FIXTURES / "make_served.py", folder)
    return folder


@pytest.mark.parametrize("name", ["tied-head", "experts"])
def test_vllm_answers_as_the_unmerged_adapter_does(made: Path, engine: Engine, name: str) -> None:
    worker, folder = Worker(engine.python), made / name
    job = {"base": str(folder / "base"), "adapter": str(folder / "adapter")}
    run = worker.run("merge_adapter", job | {"out": str(folder / "merged")}, folder)
    assert run.result["method"] == "streamed"

    found = ask_vllm(engine.python, folder)

    answers = json.loads((folder / "answers.json").read_text())
    wanted, bare = answers["unmerged"], answers["base"]
    # The last answer is of what follows the prompt.
    agreeing = sum(a == b for a, b in zip(found["token"], wanted["token"][:-1], strict=True))
    assert agreeing >= len(found["token"]) - 1
    unchanged = sum(a == b for a, b in zip(found["token"], bare["token"][:-1], strict=True))
    assert unchanged < len(found["token"]) / 2
    for ours, theirs in zip(found["logprob"], wanted["logprob"][:-1], strict=True):
        assert ours == pytest.approx(theirs, abs=0.01)


def ask_vllm(python: str, folder: Path) -> dict[str, list[float]]:
    out = folder / "vllm.json"
    done = subprocess.run(
        [python, FIXTURES / "ask_vllm.py", folder / "merged", folder / "answers.json", out],
        capture_output=True,
        text=True,
        timeout=600,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found: dict[str, list[float]] = json.loads(out.read_text())
    return found
