"""What a merge takes and what it does without: memory, a GPU, and the blocks of a file system that shares them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.large_merge import LAYER_BYTES, write_base, write_lora, write_merge
from fixtures.merge_runs import Bench, Files, digests
from fixtures.small_disks import small_disk
from fixtures.takes_minutes import rarely

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

MIB = 1 << 20
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def bench(worker: Worker, tmp_path: Path) -> Bench:
    (tmp_path / "runs").mkdir()
    return Bench(worker.python, tmp_path / "runs")


# Memory -------------------------------------------------------------------------------------------

IMPORT_TORCH = """
import os, resource
os.environ["OMP_NUM_THREADS"] = "1"
import torch
torch.set_num_threads(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def torch_alone(worker: Worker) -> int:
    """Peak bytes in memory of a process that imports torch and does nothing else."""
    told = subprocess.run(
        [worker.python, "-c", IMPORT_TORCH], check=True, capture_output=True, text=True
    )
    return int(told.stdout)


def test_memory_does_not_depend_on_the_models_size(
    bench: Bench, worker: Worker, tmp_path: Path
) -> None:
    """From 160 to 440 MB: what grows is told apart from what a thread takes, by files enough for each thread."""
    peaks = []
    for layers, layers_a_shard in ((4, 1), (13, 3)):
        base = write_base(tmp_path / f"base-{layers}", layers, layers_a_shard)
        assert sum(file.stat().st_size for file in base.iterdir()) > layers * LAYER_BYTES
        adapter = write_lora(tmp_path / f"adapter-{layers}", layers, LINEAR)
        job = {
            "base": str(base),
            "adapter": str(adapter),
            "out": str(tmp_path / f"out-{layers}"),
            "workers": 2,
        }
        result = bench.run(job).result
        assert result["tensors_changed"] == layers * len(LINEAR)
        peaks.append(result["peak_rss_bytes"])
    small, large = peaks
    print(
        f"torch {torch_alone(worker) / MIB:.1f}, merges {small / MIB:.1f} and {large / MIB:.1f} MiB"
    )
    assert large < torch_alone(worker) + 64 * MIB
    # Which threads are at their largest at once is chance; the model has grown by 280 MiB.
    assert large < small + 16 * MIB


# A GPU that is not there, or breaks ---------------------------------------------------------------


@pytest.fixture(scope="module")
def merge(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Files]:
    """A job without ``out``, and the files that the CPU makes of it."""
    root = tmp_path_factory.mktemp("large")
    job = write_merge(root / "model", 4)
    (root / "runs").mkdir()
    bench = Bench(worker.python, root / "runs")
    assert bench.run({**job, "out": str(root / "out")}).result["device"] == "cpu"
    return job, digests(root / "out")


@pytest.mark.parametrize("blocks", [7, *rarely(0, 15)], ids=lambda n: f"after {n} tensors")
def test_a_gpu_that_fails_in_the_middle_loses_nothing(
    bench: Bench, merge: tuple[dict[str, Any], Files], tmp_path: Path, blocks: int
) -> None:
    job, files = merge
    job = {**job, "device": "cuda:0", "out": str(tmp_path / "out")}
    steps = tmp_path / "steps.json"
    run = bench.run(job, {"gpu": blocks, "count": str(steps)})
    warnings = [e["text"] for e in run.events if e.get("level") == "warning"]
    assert [text for text in warnings if "GPU failed" in text] == [
        "The GPU failed; the CPU goes on: CUDA error: an illegal memory access was encountered"
    ]
    assert run.result["device"] == "cpu"
    assert digests(tmp_path / "out") == files
    # Each block was written once: nothing was begun anew.
    written = -(
        -sum(s.stat().st_size for s in (tmp_path / "out").glob("*.safetensors")) // (4 * MIB)
    )
    assert steps.read_text().count('"pwrite"') <= written + 2


def test_a_gpu_that_works_to_the_end_is_named(
    bench: Bench, merge: tuple[dict[str, Any], Files], tmp_path: Path
) -> None:
    job, files = merge
    run = bench.run({**job, "device": "cuda:0", "out": str(tmp_path / "out")}, {"gpu": 1 << 30})
    assert run.result["device"] == "cuda:0"
    assert digests(tmp_path / "out") == files


def test_a_gpu_that_fails_where_nothing_else_is_allowed_ends_the_merge(
    bench: Bench, merge: tuple[dict[str, Any], Files], tmp_path: Path
) -> None:
    job = {**merge[0], "device": "cuda:0", "fallback": False, "out": str(tmp_path / "out")}
    assert "CUDA error" in bench.run(job, {"gpu": 7}).error["why"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_gpu_that_does_not_pay_is_not_used(
    bench: Bench, merge: tuple[dict[str, Any], Files], tmp_path: Path
) -> None:
    """Less than half a gigabyte: loading CUDA alone would take longer."""
    job, files = merge
    run = bench.run({**job, "device": "cuda:9", "out": str(tmp_path / "out")})
    assert run.result["device"] == "cpu"
    assert digests(tmp_path / "out") == files


def test_a_gpu_that_would_pay_and_is_not_there_is_said(
    bench: Bench, merge: tuple[dict[str, Any], Files], tmp_path: Path
) -> None:
    job, files = merge
    run = bench.run({**job, "device": "cuda:9", "out": str(tmp_path / "out")}, {"pays": True})
    (said,) = [e["text"] for e in run.events if "The CPU merges" in e.get("text", "")]
    assert len(said) > len("The CPU merges: ")
    assert digests(tmp_path / "out") == files


def test_a_gpu_that_was_asked_for_and_is_not_there_is_refused(
    bench: Bench, merge: tuple[dict[str, Any], Files], tmp_path: Path
) -> None:
    job = {**merge[0], "device": "cuda:9", "fallback": False, "out": str(tmp_path / "out")}
    error = bench.run(job).error
    assert error["code"] == "merge.no-gpu"
    assert error["exit_code"] == 3
    assert "cuda:9" in error["what"]
    assert not (tmp_path / "out.partial").exists()


# A file system that shares blocks -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_unchanged_blocks_are_shared_where_the_file_system_can(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    with small_disk(kind, 900 * MIB, tmp_path / kind) as disk:
        base = write_base(tmp_path / "base", 6)
        shutil.copytree(base, disk.seen / "base")
        adapter = write_lora(tmp_path / "adapter", 6, ("down_proj",))
        job = {"base": str(base), "adapter": str(adapter), "out": str(tmp_path / "out")}
        assert bench.run(job).result
        before = disk.used()
        job |= {"base": str(disk.at / "base"), "out": str(disk.at / "out")}
        size = bench.run(job, within=disk.within).result["bytes"]
        taken = disk.used() - before
        print(f"{kind}: {taken / 1e6:.0f} MB of disk for {size / 1e6:.0f} MB")
        assert digests(disk.seen / "out") == digests(tmp_path / "out")
        # down_proj is 8 MiB of the 30 of a layer; blocks that it shares with others are written too.
        assert taken < size / 2
