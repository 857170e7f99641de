"""vLLM loads what streaming made and answers as base and unmerged adapter do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.worker_runs import Worker

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

FIXTURES = Path(__file__).parents[1] / "fixtures"


NAMES = ("tied-head", "experts")


@pytest.fixture(scope="module")
def made(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with adapters, merged by streaming, and what vLLM answered of each."""
    root, worker = tmp_path_factory.mktemp("served"), Worker(engine.python)
    worker.program(FIXTURES / "make_served.py", root)
    for name in NAMES:
        folder = root / name
        job = {part: str(folder / part) for part in ("base", "adapter")}
        run = worker.run("merge_adapter", {**job, "out": str(folder / "merged")}, folder)
        assert run.result["method"] == "streamed"
    worker.program(
        FIXTURES / "ask_vllm.py",
        *(root / name for name in NAMES),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_NO_USAGE_STATS="1",
    )
    return root


@pytest.mark.parametrize("name", NAMES)
def test_vllm_answers_as_the_unmerged_adapter_does(made: Path, name: str) -> None:
    found = json.loads((made / name / "vllm.json").read_text())
    answers = json.loads((made / name / "answers.json").read_text())
    wanted, bare = answers["unmerged"], answers["base"]
    # The last answer is of what follows the prompt.
    agreeing = sum(a == b for a, b in zip(found["token"], wanted["token"][:-1], strict=True))
    assert agreeing >= len(found["token"]) - 1
    unchanged = sum(a == b for a, b in zip(found["token"], bare["token"][:-1], strict=True))
    assert unchanged < len(found["token"]) / 2
    for ours, theirs in zip(found["logprob"], wanted["logprob"][:-1], strict=True):
        assert ours == pytest.approx(theirs, abs=0.01)
