"""A disk that becomes full while a merge is written to it: said clearly, nothing that lies, and gone on from.

QUANTUI_KILL_SEED says where: a failure names its own.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.large_merge import write_lora, write_merge
from fixtures.merge_runs import Bench, Files, digests, journaled
from fixtures.small_disks import SmallDisk, small_disk
from fixtures.takes_minutes import rarely

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.worker_runs import Worker, WorkerRun

pytestmark = pytest.mark.engine

SEED = int(os.environ.get("QUANTUI_KILL_SEED", time.time_ns() % 1_000_000))
LAYERS, SHARDS = 11, 6
SIDE_FILES = 64_000_000
"""What the worker wants free beside the weights."""

MERGED_BYTES = 379_119_428

MakeDisk = Callable[[str, int], SmallDisk]
"""Kind and bytes -> a disk, gone with the test."""


@dataclass(frozen=True)
class Merge:
    """A job without ``out``, and what it comes to on a disk with room."""

    job: dict[str, Any]
    files: Files
    steps: list[str]


@pytest.fixture(scope="module")
def merge(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Merge:
    root = tmp_path_factory.mktemp("large")
    job = write_merge(root / "model", LAYERS)
    (root / "runs").mkdir()
    stroke = {"count": str(root / "steps.json")}
    bench = Bench(worker.python, root / "runs")
    assert bench.run({**job, "out": str(root / "out")}, stroke).result
    files = digests(root / "out")
    shutil.rmtree(root / "out")
    return Merge(job, files, json.loads((root / "steps.json").read_text()))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MakeDisk]:
    with ExitStack() as stack:
        yield lambda kind, size: stack.enter_context(small_disk(kind, size, tmp_path / kind))


@pytest.fixture
def bench(worker: Worker, tmp_path: Path) -> Bench:
    (tmp_path / "runs").mkdir()
    return Bench(worker.python, tmp_path / "runs")


def is_clear(run: WorkerRun, disk: SmallDisk) -> dict[str, tuple[int, int]]:
    """The end of a run into a full disk tells the truth; gives the files it kept."""
    error = run.error
    assert error["code"] == "disk.full", error
    assert error["exit_code"] == 3
    assert "Traceback" not in run.stderr
    assert not (disk.seen / "out").exists()
    partial = disk.seen / "out.partial"
    kept = journaled(partial)
    if not kept:
        assert not partial.exists()
        assert "out.partial" not in error["fix"]
        return {}
    assert {path.name for path in partial.iterdir()} == {*kept, "merge_journal.jsonl"}
    size = sum(path.stat().st_size for path in partial.iterdir())
    assert f"{size / 1e9:.2f} GB that are kept in {disk.at / 'out.partial'}" in error["fix"]
    return kept


def goes_on(bench: Bench, job: dict[str, Any], disk: SmallDisk, merge: Merge, kept: int) -> None:
    result = bench.run(job, within=disk.within).result
    assert result["resumed_shards"] == kept
    assert digests(disk.seen / "out") == merge.files
    assert not (disk.seen / "out.partial").exists()


@pytest.mark.parametrize(
    ("kind", "finished"),
    [
        ("tmpfs", 2),
        ("ext4", 0),
        ("ext4 buffered", 2),
        *rarely(("tmpfs", 0), ("ext4", 2), ("ext4 buffered", 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"seed {SEED}: {value} finished",
)
def test_space_that_something_else_takes_meanwhile(
    bench: Bench, merge: Merge, disk: MakeDisk, kind: str, finished: int
) -> None:
    chance = random.Random(f"{SEED} {kind} {finished}")
    system, _, buffered = kind.partition(" ")
    small = disk(system, 900 << 20 if buffered else 520 << 20)
    job = {**merge.job, "out": str(small.at / "out")}
    if buffered:
        # Copying within one disk is done by the kernel, which finds it full in its own way.
        shutil.copytree(job["base"], small.seen / "base")
        job["base"] = str(small.at / "base")
    empty = small.used()
    stroke = {"buffered": True} if buffered else {}
    merging = bench.start(job, stroke, small.within)
    partial = small.seen / "out.partial"
    first = partial / "model-00001-of-00006.safetensors.part"
    merging.until(lambda: len(journaled(partial)) >= finished if finished else first.exists())
    merging.process.send_signal(signal.SIGSTOP)
    small.fill(leave=chance.choice([0, chance.randrange(8 << 20)]))
    merging.process.send_signal(signal.SIGCONT)
    kept = is_clear(merging.end(), small)
    assert finished <= len(kept) < SHARDS
    small.free()
    goes_on(bench, job, small, merge, len(kept))
    shutil.rmtree(small.seen / "out")
    # A file system keeps a few blocks for the names that it has had.
    assert small.used() - empty < 1 << 20


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_removing_what_is_kept_gives_all_space_back(
    bench: Bench, merge: Merge, disk: MakeDisk, kind: str
) -> None:
    small = disk(kind, 520 << 20)
    empty = small.used()
    job = {**merge.job, "out": str(small.at / "out")}
    merging = bench.start(job, within=small.within)
    merging.until(lambda: len(journaled(small.seen / "out.partial")) >= 2)
    merging.process.send_signal(signal.SIGSTOP)
    small.fill()
    merging.process.send_signal(signal.SIGCONT)
    assert is_clear(merging.end(), small)
    small.free()
    assert small.used() - empty > 100_000_000
    shutil.rmtree(small.seen / "out.partial")
    assert small.used() - empty < 1 << 20


SMALL = ("config.json", "model.safetensors.index.json", "merge_proof.json")
"""In the order in which they are written."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("tmpfs", SMALL[0]),
        ("ext4", SMALL[2]),
        *rarely(("tmpfs", SMALL[1]), ("tmpfs", SMALL[2])),
    ],
)
def test_a_disk_that_is_full_when_only_small_files_are_missing(
    bench: Bench, merge: Merge, disk: MakeDisk, tmp_path: Path, kind: str, name: str
) -> None:
    small = disk(kind, 520 << 20)
    job = {**merge.job, "out": str(small.at / "out")}
    which = SMALL.index(name)
    at = [number for number, step in enumerate(merge.steps) if step == "write_text"][which]
    go_on = tmp_path / "go on"
    merging = bench.start(job, {"hold": at, "until": str(go_on)}, small.within)
    merging.until(lambda: len(journaled(small.seen / "out.partial")) == SHARDS)
    if which:
        merging.until((small.seen / "out.partial" / SMALL[which - 1]).exists)
    time.sleep(0.3)
    small.fill()
    go_on.touch()
    assert len(is_clear(merging.end(), small)) == SHARDS
    small.free()
    goes_on(bench, job, small, merge, SHARDS)


# Before a byte is written -------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_anything_is_written(
    bench: Bench, merge: Merge, disk: MakeDisk
) -> None:
    small = disk("tmpfs", MERGED_BYTES + SIDE_FILES - (1 << 20))
    empty = small.used()
    run = bench.run({**merge.job, "out": str(small.at / "new/out")}, within=small.within)
    assert run.error["code"] == "disk.not-enough"
    assert run.error["exit_code"] == 3
    assert "0.44 GB" in run.error["what"]
    assert run.phases() == ["plan"]
    assert small.used() == empty
    assert list(small.seen.iterdir()) == []


def test_what_is_finished_needs_no_room_again(
    bench: Bench, worker: Worker, merge: Merge, disk: MakeDisk
) -> None:
    small = disk("tmpfs", MERGED_BYTES + SIDE_FILES + (8 << 20))
    job = {**merge.job, "out": str(small.at / "out")}
    merging = bench.start(job, within=small.within)
    merging.until(lambda: len(journaled(small.seen / "out.partial")) >= 2)
    merging.process.kill()
    merging.process.wait()
    goes_on(bench, job, small, merge, len(journaled(small.seen / "out.partial")))


def test_what_another_merge_left_takes_no_room_from_this_one(
    bench: Bench, merge: Merge, disk: MakeDisk, tmp_path: Path
) -> None:
    small = disk("tmpfs", MERGED_BYTES + SIDE_FILES + (8 << 20))
    other = write_lora(tmp_path / "other", LAYERS, ("q_proj",))
    job = {**merge.job, "out": str(small.at / "out")}
    unlike = {**job, "adapters": [{"path": str(other)}]}
    merging = bench.start(unlike, within=small.within)
    merging.until(lambda: len(journaled(small.seen / "out.partial")) >= 2)
    merging.process.kill()
    merging.process.wait()
    goes_on(bench, job, small, merge, 0)
