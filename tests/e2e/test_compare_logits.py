"""Answers of a merged model against those of its base with the adapters unmerged.

The merges are made by hand, right ones and wrong ones, in bfloat16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.worker_runs import WORKERS, WorkerRun

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def compared(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, WorkerRun]:
    """Every comparison, by name."""
    root = tmp_path_factory.mktemp("comparisons")
    (root / "events").mkdir()
    worker.program(FIXTURES / "make_comparisons.py", root)
    comparer = WORKERS / "compare_logits.py"
    worker.program(FIXTURES / "warm_workers.py", comparer, root / "jobs.json", root / "events")
    found = {}
    for name in json.loads((root / "jobs.json").read_text()):
        lines = (root / "events" / name).read_text().splitlines()
        found[name] = WorkerRun(0, [json.loads(line) for line in lines], "")
    return found


RIGHT = ("right", "heavier", "two", "head-untied", "tokens", "experts", "larger")


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_merge_passes(compared: dict[str, WorkerRun], name: str) -> None:
    result = compared[name].result
    assert result["kl_base"] > 0.01, "the case proves nothing"
    assert result["passed"] is True
    assert result["kl_merged"] < 0.01 * result["kl_base"]
    assert result["top1_agreement"] > 0.9
    assert result["tokens"] > 0


WRONG = ("spoiled", "half", "two-swapped", "two-unweighted", "head-in-both", "experts-untouched")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_merge_does_not_pass(compared: dict[str, WorkerRun], name: str) -> None:
    result = compared[name].result
    assert result["passed"] is False
    assert result["kl_merged"] > 0.05 * result["kl_base"]


def test_a_merge_with_another_vocabulary_is_no_merge(compared: dict[str, WorkerRun]) -> None:
    error = compared["too-small"].error
    assert error["code"] == "merge.proof-failed"
    assert error["why"] == "It knows 256 tokens, and base and adapter 260."


@pytest.mark.parametrize(
    ("name", "reason"), [("two-dora", "use_dora"), ("saved-weighted", "modules_to_save")]
)
def test_what_peft_cannot_run_unmerged_is_refused(
    compared: dict[str, WorkerRun], name: str, reason: str
) -> None:
    error = compared[name].error
    assert error["code"] == "merge.no-reference"
    assert reason in error["what"]
    assert error["exit_code"] == 2


def test_short_memory_is_told_before_anything_is_loaded(compared: dict[str, WorkerRun]) -> None:
    run = compared["too-little-memory"]
    assert run.error["code"] == "merge.not-enough-memory"
    assert run.error["exit_code"] == 3
    assert run.phases() == ["check"]


def test_phases_and_progress_are_told(compared: dict[str, WorkerRun]) -> None:
    run = compared["two"]
    assert run.phases() == [
        "check", "load base", "ask base", "load adapters", "ask base and adapters",
        "load merged", "ask merged",
    ]  # fmt: skip
    units = {event["unit"] for event in run.events if event["type"] == "progress"}
    assert units == {"bytes", "adapters"}


def test_given_prompts_are_used(
    demo: Path, worker: Worker, tmp_path: Path, compared: dict[str, WorkerRun]
) -> None:
    job = {
        "base": str(demo / "base"),
        "merged": str(demo / "base"),
        "adapters": [{"path": str(demo / "adapter")}],
        "prompts": ["Question: What does json.loads do?\nAnswer:"],
    }
    result = worker.run("compare_logits", job, tmp_path).result
    assert result["tokens"] < min(run.events[-1].get("tokens", 999) for run in compared.values())
    assert result["passed"] is False, "a base is no merge"
    assert result["kl_merged"] == pytest.approx(result["kl_base"], rel=0.01)
