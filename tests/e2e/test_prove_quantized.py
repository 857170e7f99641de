"""The proof that a quantized checkpoint loads: by vLLM, and by transformers where vLLM does not run its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.takes_minutes import TAKES_MINUTES
from fixtures.worker_runs import Worker, WorkerRun

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [
    pytest.mark.engine,
    TAKES_MINUTES,
]

FIXTURES = Path(__file__).parents[1] / "fixtures"
TOKENS = 1024


@dataclass(frozen=True)
class Checkpoints:
    """Folders of a whole checkpoint and of broken ones; what the 16-bit model says; its perplexity."""

    root: Path
    reference: Path
    perplexity: float


@pytest.fixture(scope="module")
def vllm(engine: Engine) -> Worker:
    return Worker(str(engine.python))


@pytest.fixture(scope="module")
def checkpoints(demo: Path, vllm: Worker, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    root = tmp_path_factory.mktemp("checkpoints")
    vllm.program(FIXTURES / "make_broken.py", demo / "base", root)
    job = {"model": str(demo / "base"), "out": str(root / "reference"), "tokens": TOKENS}
    measured = vllm.run("measure_model", job, root).result
    return Checkpoints(root, root / "reference", measured["perplexity"])


def prove(vllm: Worker, program: str, given: Checkpoints, name: str, **changes: Any) -> WorkerRun:
    folder = given.root / f"{program}-{name}"
    folder.mkdir(exist_ok=True)
    job = {
        "model": str(given.root / name),
        "reference": str(given.reference),
        "tokens": TOKENS,
        "device": "cpu",
        "max_model_len": 544,
    }
    return vllm.run(program, {**job, **changes}, folder)


PROGRAMS = ("prove_in_vllm", "prove_in_transformers")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_whole_checkpoint_loads_and_predicts_nearly_as_its_base(
    vllm: Worker, checkpoints: Checkpoints, program: str
) -> None:
    run = prove(vllm, program, checkpoints, "nf4")
    result = run.result
    assert result["perplexity"] == pytest.approx(checkpoints.perplexity, rel=0.1)
    assert result["perplexity"] != checkpoints.perplexity, "4 bit cost something"
    assert result["tokens"] == TOKENS - TOKENS // 512
    assert result["finite"] is True
    assert 0.7 < result["agreement"] <= 1
    assert result["peak_rss_bytes"] > 200e6
    assert 0 < result["load_seconds"] <= result["seconds"]
    runtime = "vLLM 0." if program == "prove_in_vllm" else "transformers "
    assert result["runtime"].startswith(runtime)
    assert result["runtime"].endswith(" (CPU)")
    assert run.phases() == ["load", "measure"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_checkpoint_that_answers_with_nan_is_broken(
    vllm: Worker, checkpoints: Checkpoints, program: str
) -> None:
    error = prove(vllm, program, checkpoints, "nan").error
    assert (error["code"], error["exit_code"]) == ("prove.not-finite", 6)


def test_a_checkpoint_that_lacks_a_tensor_does_not_load_in_vllm(
    vllm: Worker, checkpoints: Checkpoints
) -> None:
    assert prove(vllm, "prove_in_vllm", checkpoints, "fp8").result["finite"] is True
    error = prove(vllm, "prove_in_vllm", checkpoints, "fp8-lacking").error
    assert (error["code"], error["exit_code"]) == ("prove.does-not-load", 6)
    assert "model.layers.1.mlp.down_proj.weight" in error["why"], "the cause, not what wraps it"


def test_a_checkpoint_that_lacks_a_tensor_does_not_load_in_transformers(
    vllm: Worker, checkpoints: Checkpoints
) -> None:
    error = prove(vllm, "prove_in_transformers", checkpoints, "fp8-lacking").error
    assert (error["code"], error["exit_code"]) == ("prove.does-not-load", 6)


def test_without_a_reference_perplexity_is_measured_all_the_same(
    vllm: Worker, checkpoints: Checkpoints
) -> None:
    changes = {"reference": None, "tokens": 600}
    result = prove(vllm, "prove_in_transformers", checkpoints, "nf4", **changes).result
    assert result["agreement"] is None
    assert result["tokens"] == 598


def test_another_text_than_the_references_is_measured_on(
    vllm: Worker, checkpoints: Checkpoints, demo: Path, tmp_path: Path
) -> None:
    text = tmp_path / "tales.txt"
    text.write_bytes((demo / "heldout_adapter.txt").read_bytes())
    checkpoint = Checkpoints(tmp_path, checkpoints.reference, 0)
    (tmp_path / "nf4").symlink_to(checkpoints.root / "nf4")
    run = prove(vllm, "prove_in_transformers", checkpoint, "nf4", text=str(text))
    assert run.result["perplexity"] > 2 * checkpoints.perplexity, "the base knows no tales"
    assert run.result["agreement"] is not None


def test_short_memory_is_no_fault_of_the_checkpoint(
    vllm: Worker, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    checkpoint = Checkpoints(tmp_path, checkpoints.reference, 0)
    (tmp_path / "nf4").symlink_to(checkpoints.root / "nf4")
    changes = {"memory_limit_bytes": 1_000_000}
    error = prove(vllm, "prove_in_transformers", checkpoint, "nf4", **changes).error
    assert (error["code"], error["exit_code"]) == ("quantize.not-enough-memory", 3)
