"""What the 16-bit model says, measured once for those that quantize it to be compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker, WorkerRun

pytestmark = pytest.mark.engine

TOKENS = 2048


@pytest.fixture(scope="module")
def measured(demo: Path, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> WorkerRun:
    """The demo's base, measured on the built-in text."""
    root = tmp_path_factory.mktemp("measured")
    job = {"model": str(demo / "base"), "out": str(root / "reference"), "tokens": TOKENS}
    return worker.run("measure_model", job, root)


def reference(measured: WorkerRun) -> Path:
    return Path(measured.result["path"])


def test_perplexity_of_a_trained_model_is_that_of_a_trained_model(measured: WorkerRun) -> None:
    result = measured.result
    assert 50 < result["perplexity"] < 200, "4096 is what guessing gives"
    assert result["tokens"] == TOKENS - TOKENS // 512
    assert result["text"] == "builtin"
    assert result["peak_rss_bytes"] > 100e6
    assert {"torch", "transformers"} <= set(result["versions"])


def test_phases_and_progress_are_told(measured: WorkerRun) -> None:
    assert measured.phases() == ["load", "ask", "measure"]
    told = [event for event in measured.events if event["type"] == "progress"]
    assert {event["unit"] for event in told} == {"bytes", "tokens"}
    assert told[-1]["done"] == told[-1]["total"] == TOKENS


def test_the_reference_holds_short_prompts_with_what_follows_and_the_ids_of_the_text(
    measured: WorkerRun,
) -> None:
    raw = reference(measured).read_bytes()
    kept = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert kept.pop("__metadata__") == {"window": "512", "text": "builtin"}
    assert kept.pop("heldout")["shape"] == [TOKENS]
    assert len(kept) == 6
    for number in range(3):
        ids, said = kept[f"prompt.{number}"], kept[f"logprobs.{number}"]
        (count,) = ids["shape"]
        assert 4 <= count <= 48
        assert ids["dtype"] == "I64"
        assert (said["shape"], said["dtype"]) == ([count, 4096], "F32")


def test_the_built_in_text_is_what_the_demo_holds_out(
    demo: Path, worker: Worker, tmp_path: Path, measured: WorkerRun
) -> None:
    job = {
        "model": str(demo / "base"),
        "out": str(tmp_path / "reference"),
        "tokens": TOKENS,
        "text": str(demo / "heldout.txt"),
    }
    again = worker.run("measure_model", job, tmp_path).result
    assert again["perplexity"] == measured.result["perplexity"]
    assert again["text"] == job["text"]


def test_where_float32_does_not_fit_the_result_is_the_same(
    demo: Path, worker: Worker, tmp_path: Path, measured: WorkerRun
) -> None:
    weights = (demo / "base/model.safetensors").stat().st_size
    # Libraries, 16 bit and one widened layer, logits; but not twice the weights.
    enough = 700_000_000 + weights + 4 * 4096 * 256 + 4 * 4 * 4096 * 512
    job = {
        "model": str(demo / "base"),
        "out": str(tmp_path / "reference"),
        "tokens": TOKENS,
        "memory_limit_bytes": enough + 1_000_000,
    }
    run = worker.run("measure_model", job, tmp_path)
    assert run.result["perplexity"] == pytest.approx(measured.result["perplexity"], rel=1e-6)


def test_short_memory_is_told_before_anything_is_loaded(
    demo: Path, worker: Worker, tmp_path: Path
) -> None:
    job = {
        "model": str(demo / "base"),
        "out": str(tmp_path / "reference"),
        "memory_limit_bytes": 1_000_000,
    }
    error = worker.run("measure_model", job, tmp_path).error
    assert error["code"] == "quantize.not-enough-memory"
    assert error["exit_code"] == 3
    assert not (tmp_path / "reference").exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"Too short.", "proof.text-too-short"),
        (b"\xff\xfe", "calibration.not-utf8"),
        (None, "proof.bad-text"),
    ],
)
def test_a_text_that_cannot_be_measured_on_is_refused(
    demo: Path, worker: Worker, tmp_path: Path, content: bytes | None, code: str
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    job = {"model": str(demo / "base"), "out": str(tmp_path / "reference"), "text": str(text)}
    error = worker.run("measure_model", job, tmp_path).error
    assert (error["code"], error["exit_code"]) == (code, 2)
