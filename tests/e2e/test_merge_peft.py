"""Merging through PEFT: what it gives is base + adapter, or it gives nothing.

The reference is transformers with the adapter *unmerged* by PEFT, in float32. All cases run once, in
the ``merged`` fixture; the tests read what came of them.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.takes_minutes import rarely
from fixtures.worker_runs import WORKERS, WorkerRun

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Merged:
    """Every tiny case, merged: events by case, and logits against the reference."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = json.loads((root / "jobs.json").read_text())
        self.compared = json.loads((root / "compared.json").read_text())

    def run(self, case: str) -> WorkerRun:
        lines = (self.root / "events" / case).read_text().splitlines()
        return WorkerRun(0, [json.loads(line) for line in lines], "")

    def out(self, case: str) -> Path:
        return self.root / "out" / case


@pytest.fixture(scope="module")
def merged(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Merged:
    root = tmp_path_factory.mktemp("tiny")
    (root / "events").mkdir()
    worker.program(FIXTURES / "make_tiny.py", "build", root)
    merger = WORKERS / "merge_peft.py"
    worker.program(FIXTURES / "warm_workers.py", merger, root / "jobs.json", root / "events")
    worker.program(FIXTURES / "make_tiny.py", "compare", root)
    return Merged(root)


EXACT = (
    "plain", "tied-untouched", "head-tied", "embedding-tied", "head-saved-tied", "tokens-tied",
    "embedding", "dora", "rslora", "patterns", "gpt2", "biases", "resized", "ia3",
    "pissa", "olora", "kasa", "velora", "monteclora", "bdlora",
)  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_float32_merge_answers_as_the_unmerged_adapter(merged: Merged, case: str) -> None:
    assert merged.run(case).result
    compared = merged.compared[case]
    assert compared["adapter_changes"] > 1.0, "the case proves nothing"
    assert compared["difference"] < 1e-4


@pytest.mark.parametrize("case", ["bf16", "fp16", "llama-to-bf16"])
def test_a_16_bit_merge_is_rounded_once(merged: Merged, case: str) -> None:
    proof = merged.run(case).result["proof"]
    assert proof["correctly_rounded"] > 0.999
    compared = merged.compared[case]
    assert compared["difference"] < 0.02 * compared["adapter_changes"]
    assert compared["dtype"] == {"fp16": "float16"}.get(case, "bfloat16")


@pytest.mark.parametrize("case", ["pissa", "olora", "kasa", "pissa-bf16"])
def test_what_peft_takes_from_the_base_again_is_merged_as_it_was_trained(
    merged: Merged, case: str
) -> None:
    logits = merged.run(case).result["proof"]["logits"]
    assert logits["passed"]
    assert logits["kl_base"] > 0.01, "measured against the published base"
    assert merged.compared[case]["reloading_changes"] < 1e-4
    assert merged.compared[case]["difference"] < 0.02 * merged.compared[case]["adapter_changes"]


@pytest.mark.parametrize("case", ["head-tied", "embedding-tied", "head-saved-tied"])
def test_a_tied_head_that_the_adapter_parts_is_stored_on_its_own(merged: Merged, case: str) -> None:
    assert merged.compared[case]["tied"] is False
    assert merged.run(case).result["proof"]["logits"]["passed"]


@pytest.mark.parametrize("case", ["tied-untouched", "tokens-tied", "biases"])
def test_a_tie_that_the_adapter_keeps_stays(merged: Merged, case: str) -> None:
    assert merged.compared[case]["tied"] is True


def test_every_tensor_is_accounted_for(merged: Merged) -> None:
    result = merged.run("plain").result
    assert result["adapter_tensors"] == 28
    assert result["tensors_changed"] == 14
    assert result["tensors_untouched"] == 7
    proof = result["proof"]
    assert proof["untouched_identical"] == 7
    assert proof["left_out"] == proof["added"] == []
    assert proof["sampled_tensors_on_disk"] == 14


def test_proof_lies_in_the_merged_folder_with_the_norm_of_each_change(merged: Merged) -> None:
    proof = json.loads((merged.out("plain") / "merge_proof.json").read_text())
    assert len(proof["delta_norms"]) == 14
    assert min(proof["delta_norms"].values()) > 0
    assert proof["proof"] == merged.run("plain").result["proof"]


def test_logits_are_compared_when_asked_for(merged: Merged) -> None:
    logits = merged.run("bf16").result["proof"]["logits"]
    assert logits["kl_merged"] <= 0.05 * logits["kl_base"]


def test_weights_are_sharded_as_asked(merged: Merged) -> None:
    files = merged.compared["bf16"]["files"]
    assert "model.safetensors.index.json" in files
    assert sum(name.endswith(".safetensors") for name in files) > 1


def test_side_files_are_copied_and_pickles_are_not(merged: Merged) -> None:
    files = merged.compared["plain"]["files"]
    assert "LICENSE" in files
    assert "pytorch_model.bin" not in files


def test_a_wrong_merge_fails_its_proof_and_is_removed(merged: Merged) -> None:
    error = merged.run("sabotaged").error
    assert error["code"] == "merge.proof-failed"
    assert error["exit_code"] == 6


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("no-match", "merge.no-key-matched"),
        ("half", "merge.keys-unmatched"),
        ("extra", "merge.keys-unmatched"),
        ("wrong-rank", "merge.shape-mismatch"),
        ("nan", "merge.not-finite"),
        ("zero", "merge.no-effect"),
        ("pissa-random", "merge.unconverted-init"),
        ("lora-ga", "merge.unconverted-init"),
        ("unknown", "merge.unknown-setting"),
        ("alora", "merge.not-mergeable"),
        ("prompt", "merge.not-mergeable"),
        ("cut-off", "adapter.damaged"),
        ("pickled", "merge.pickled-adapter"),
        ("four-bit", "merge.quantized-base"),
    ],
)
def test_what_cannot_be_merged_rightly_is_refused(merged: Merged, case: str, code: str) -> None:
    error = merged.run(case).error
    assert error["code"] == code
    assert error["exit_code"] == 2
    assert error["why"]
    assert error["fix"]


def test_short_memory_is_told_before_anything_is_loaded(merged: Merged) -> None:
    run = merged.run("too-little-memory")
    assert run.error["code"] == "merge.not-enough-memory"
    assert run.error["exit_code"] == 3
    assert run.phases() == ["check"]


def test_what_failed_leaves_nothing_behind(merged: Merged) -> None:
    failed = {case for case in merged.jobs if merged.run(case).events[-1]["type"] == "error"}
    assert len(failed) == 16
    left = {path.name for path in (merged.root / "out").iterdir()}
    assert left == set(merged.jobs) - failed


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL, *rarely(signal.SIGTERM)])
def test_stopped_in_the_middle_there_is_no_merged_model(
    demo: Path, worker: Worker, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "merged"
    job = {"base": str(demo / "base"), "adapter": str(demo / "adapter"), "out": str(out)}
    process = worker.start("merge_peft", job, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line) == {"type": "phase", "name": "load base"}:
            break
    asked = time.monotonic()
    process.send_signal(stop)
    process.wait(timeout=10)
    assert time.monotonic() - asked < 1.5
    process.communicate()
    assert not out.exists()
    if stop != signal.SIGKILL:
        assert process.returncode == 130
        assert not out.with_name("merged.partial").exists()


def test_the_demo_adapter_merges_after_an_interrupted_try(
    demo: Path, worker: Worker, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    leftover = tmp_path / "merged.partial"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    job = {
        "base": str(demo / "base"),
        "adapter": str(demo / "adapter"),
        "out": str(out),
        "verify": "logits",
        "prompts": ["Question: What does json.loads do?\nAnswer:"],
    }
    result = worker.run("merge_peft", job, tmp_path).result
    assert result["proof"]["logits"]["top1_agreement"] > 0.9
    assert result["peak_rss_bytes"] > 0
    assert not leftover.exists()
    assert (out / "tokenizer.json").exists()
    assert (out / "chat_template.jinja").exists()
