"""A merge that SIGKILL ends, at any moment and any number of times, goes on to the very same bytes.

QUANTUI_KILL_RUNS says how many times it is tried (4), QUANTUI_KILL_SEED where the kills fall: a failure names its own.
The model has 380 MB in 6 files, so that most of them fall into the writing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.large_merge import write_lora, write_merge
from fixtures.merge_runs import Bench, Files, Merging, digests, journaled

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

RUNS = int(os.environ.get("QUANTUI_KILL_RUNS", "4"))
SEED = int(os.environ.get("QUANTUI_KILL_SEED", time.time_ns() % 1_000_000))
LAYERS = 11
SHARDS = 6

NAMES = (
    *(f"model-0000{n}-of-00006.safetensors{end}" for n in range(1, 7) for end in (".part", "")),
    "merge_journal.jsonl", "config.json", "tokenizer.json", "chat_template.jinja", "merge_proof.json",
)  # fmt: skip
"""What appears in the folder, in about this order."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL at a ``place``: a step of the worker, a phase, a name that appears, or a time."""

    kind: str
    place: str | float
    delay: float = 0.0
    when: str = ""

    def __str__(self) -> str:
        if self.kind == "step":
            return f"{self.when} {self.place:.3f} of its steps"
        if self.kind == "clock":
            return f"at {self.place:.3f} of its time"
        return f"{self.delay * 1000:.1f} ms after {self.kind} {self.place}"


def some_kill(chance: random.Random, kind: str) -> Kill:
    if kind == "step":
        return Kill(kind, chance.random(), when=chance.choice(["before", "after", "torn"]))
    if kind == "clock":
        return Kill(kind, chance.random())
    if kind == "phase":
        phase = chance.choices(["plan", "merge", "verify"], [1, 3, 1])[0]
        return Kill(
            kind, phase, chance.uniform(0, {"plan": 0.5, "merge": 0.7, "verify": 0.3}[phase])
        )
    return Kill(kind, chance.choice(NAMES), chance.choice([0, chance.uniform(0, 0.01)]))


def chains(count: int, seed: int) -> list[tuple[Kill, ...]]:
    """One to four kills in a row, ``count`` times; each kind comes first equally often."""
    chance = random.Random(seed)
    kinds = ["step", "phase", "name", "clock"]
    found = []
    for number in range(count):
        row = [kinds[number % 4], *chance.choices(kinds, k=chance.choice([0, 0, 1, 3]))]
        found.append(tuple(some_kill(chance, kind) for kind in row))
    return found


@dataclass
class Undisturbed:
    """A merge, and what it comes to when nothing happens to it: bytes, seconds, steps."""

    job: dict[str, Any]
    files: Files
    seconds: float
    steps: list[str]

    def steps_left(self, finished: int) -> int:
        """About how many there are when so many files were finished before."""
        writing = sum(self.steps.count(name) for name in ("pwrite", "ftruncate", "rename", "write"))
        return len(self.steps) - writing * finished // SHARDS


@pytest.fixture(scope="module")
def undisturbed(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("large")
    job = write_merge(root / "model", LAYERS)
    (root / "runs").mkdir()
    bench = Bench(worker.python, root / "runs")
    began = time.monotonic()
    assert bench.run({**job, "out": str(root / "out")}).result["resumed_shards"] == 0
    seconds = time.monotonic() - began
    files = digests(root / "out")
    shutil.rmtree(root / "out")
    steps = root / "steps.json"
    assert bench.run({**job, "out": str(root / "out")}, {"count": str(steps)}).result
    assert digests(root / "out") == files
    shutil.rmtree(root / "out")
    return Undisturbed(job, files, seconds, json.loads(steps.read_text()))


class Target:
    """A place for results, and the runs that are to make one there."""

    def __init__(self, worker: Worker, undisturbed: Undisturbed, folder: Path) -> None:
        self.place = folder / "place"
        self.place.mkdir()
        (folder / "runs").mkdir()
        self.bench = Bench(worker.python, folder / "runs")
        self.undisturbed = undisturbed
        self.job = {**undisturbed.job, "out": str(self.place / "out")}
        self.partial = self.place / "out.partial"
        self.out = self.place / "out"

    def kill(self, kill: Kill) -> bool:
        """Run into it; False when the merge was over before."""
        stroke = None
        if kill.kind == "step":
            at = int(float(kill.place) * self.undisturbed.steps_left(len(journaled(self.partial))))
            stroke = {"at": at, "when": kill.when}
        merging = self.bench.start(self.job, stroke)
        if kill.kind == "clock":
            time.sleep(float(kill.place) * self.undisturbed.seconds)
        elif kill.kind == "phase":
            merging.until_phase(str(kill.place))
        elif kill.kind == "name":
            merging.until((self.partial / str(kill.place)).exists)
        if kill.kind == "step":
            return merging.end().exit_code == -signal.SIGKILL
        time.sleep(kill.delay)
        merging.process.kill()
        return merging.end().exit_code == -signal.SIGKILL

    def finish(self) -> dict[str, Any]:
        """Run to the end: all that was finished is kept, and the result is the undisturbed one's."""
        before = journaled(self.partial)
        result = self.bench.run(self.job).result
        assert result["resumed_shards"] == len(before)
        kept = {name: (self.out / name).stat() for name in before}
        assert {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in kept.items()} == before
        self.is_right()
        return result

    def is_right(self) -> None:
        assert digests(self.out) == self.undisturbed.files
        assert [path.name for path in self.place.iterdir()] == ["out"]
        assert self.bench.temporary_files() == []

    def after_kill_with(self, finished: int) -> dict[str, tuple[int, int]]:
        """Kill a merge of which so many files are finished; gives them. One that was over before is made again."""
        for _ in range(5):
            merging = self.bench.start(self.job)
            merging.until(lambda: len(journaled(self.partial)) >= finished)
            merging.process.kill()
            merging.process.wait()
            found = journaled(self.partial)
            if finished <= len(found) < SHARDS:
                return found
            shutil.rmtree(self.partial, ignore_errors=True)
            shutil.rmtree(self.out, ignore_errors=True)
        raise AssertionError("the merge was always over before it was killed")


@pytest.fixture
def target(worker: Worker, undisturbed: Undisturbed, tmp_path: Path) -> Target:
    return Target(worker, undisturbed, tmp_path)


@pytest.mark.parametrize(
    "chain", chains(RUNS, SEED), ids=lambda chain: f"seed {SEED}: " + ", ".join(map(str, chain))
)
def test_killed_and_run_again_the_bytes_are_the_same(
    target: Target, chain: tuple[Kill, ...]
) -> None:
    for kill in chain:
        was_killed = target.kill(kill)
        print(
            f"{kill}: {'killed' if was_killed else 'too late'}, kept {len(journaled(target.partial))}"
        )
        if target.out.exists():
            # It was over: by its own end, or by its last step.
            target.is_right()
            return
        assert was_killed
    target.finish()
    shutil.rmtree(target.place)


def test_kills_fall_into_writing_and_leave_work_to_go_on_from(target: Target) -> None:
    """What the random ones rest on: a kill after two finished files loses neither."""
    target.after_kill_with(2)
    assert target.finish()["resumed_shards"] >= 2


# What the work goes on from, and what not ---------------------------------------------------------


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def private_copy(target: Target, folder: Path) -> None:
    """Let the job name adapters and base of its own, which the test may change."""
    shutil.copytree(target.job["base"], folder / "base")
    adapters = []
    for number, adapter in enumerate(target.job["adapters"]):
        path = shutil.copytree(adapter["path"], folder / f"adapter-{number}")
        adapters.append({**adapter, "path": str(path)})
    target.job |= {"base": str(folder / "base"), "adapters": adapters}


@pytest.mark.parametrize("change", ["adapter byte", "base file", "scale", "dtype"])
def test_another_merge_starts_anew(target: Target, tmp_path: Path, change: str) -> None:
    private_copy(target, tmp_path)
    before = target.after_kill_with(1)
    second = Path(target.job["adapters"][1]["path"])
    if change == "adapter byte":
        change_a_byte(second / "adapter_model.safetensors")
    elif change == "base file":
        change_a_byte(tmp_path / "base/model-00003-of-00006.safetensors")
    elif change == "scale":
        config = json.loads((second / "adapter_config.json").read_text())
        (second / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 8}))
    else:
        target.job["dtype"] = "float16"
    assert target.bench.run(target.job).result["resumed_shards"] == 0
    assert digests(target.out) != target.undisturbed.files
    for name, (_, modified) in before.items():
        assert (target.out / name).stat().st_mtime_ns > modified
    assert target.partial.exists() is False


def test_an_adapter_of_other_weight_starts_anew(target: Target, tmp_path: Path) -> None:
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    plain = write_lora(tmp_path / "plain", LAYERS, modules)
    target.job["adapters"] = [{"path": str(plain), "weight": 1.0}]
    target.after_kill_with(1)
    target.job["adapters"] = [{"path": str(plain), "weight": 0.5}]
    assert target.bench.run(target.job).result["resumed_shards"] == 0
    half = digests(target.out)
    shutil.rmtree(target.out)
    assert target.bench.run(target.job).result
    assert digests(target.out) == half


def test_side_files_of_another_choice_are_not_left_in_the_result(target: Target) -> None:
    finished = target.after_kill_with(2)
    # What a kill while side files are copied leaves.
    first = Path(target.job["adapters"][0]["path"])
    shutil.copy(first / "chat_template.jinja", target.partial)
    target.job["tokenizer_from"] = "base"
    assert target.bench.run(target.job).result["resumed_shards"] == len(finished)
    assert not (target.out / "chat_template.jinja").exists()


def test_a_journal_line_that_was_cut_off_counts_as_not_written(target: Target) -> None:
    before = target.after_kill_with(2)
    path = target.partial / "merge_journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert len(journaled(target.partial)) == len(before) - 1
    target.finish()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2]\n"])
def test_a_journal_that_is_none_is_not_believed(target: Target, content: bytes) -> None:
    target.after_kill_with(1)
    (target.partial / "merge_journal.jsonl").write_bytes(content)
    assert target.bench.run(target.job).result["resumed_shards"] == 0
    target.is_right()


@pytest.mark.parametrize("damage", ["cut off", "too long", "gone", "a folder"])
def test_a_finished_file_that_was_damaged_is_written_again(target: Target, damage: str) -> None:
    before = target.after_kill_with(2)
    path = target.partial / min(before)
    size = path.stat().st_size
    if damage in ("cut off", "too long"):
        os.truncate(path, size - 1 if damage == "cut off" else size + 1)
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    result = target.bench.run(target.job).result
    assert result["resumed_shards"] == len(before) - 1
    target.is_right()


@pytest.mark.parametrize("where", [100, 30_000_000], ids=["header", "values"])
def test_a_finished_file_of_other_content_does_not_pass_the_proof(
    target: Target, where: int
) -> None:
    before = target.after_kill_with(1)
    with (target.partial / min(before)).open("r+b") as file:
        file.seek(where)
        file.write(bytes(2_000_000 if where > 1000 else 1))
    error = target.bench.run(target.job).error
    assert error["code"] == "merge.proof-failed"
    assert list(target.place.iterdir()) == []


def test_a_foreign_folder_in_the_place_of_the_unfinished_one_is_cleared(target: Target) -> None:
    (target.partial / "deep").mkdir(parents=True)
    (target.partial / "deep/file").write_bytes(b"x")
    (target.partial / "model-00001-of-00006.safetensors").write_bytes(b"half")
    (target.partial / "link").symlink_to("deep")
    assert target.finish()["resumed_shards"] == 0


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_left_alone(target: Target, tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    if kind == "file":
        target.partial.write_text("kept")
    else:
        target.partial.symlink_to(precious)
    error = target.bench.run(target.job).error
    assert error["code"] == "merge.exists"
    assert "out.partial" in error["what"]
    assert (precious / "file").read_text() == "kept"
    assert os.path.lexists(target.partial)
    assert not target.out.exists()


# Two at once --------------------------------------------------------------------------------------


def test_a_second_merge_to_the_same_place_is_refused_and_disturbs_nothing(
    target: Target, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    first = target.bench.start(target.job, {"hold": 60, "until": str(go_on)})
    assert first.until(lambda: len(journaled(target.partial)) >= 1)
    there = journaled(target.partial)
    for other in ({}, {"dtype": "float16"}):
        error = target.bench.run({**target.job, **other}).error
        assert error["code"] == "merge.in-progress", error
        assert error["exit_code"] == 2
    assert there.items() <= journaled(target.partial).items()
    go_on.touch()
    assert first.end().result
    target.is_right()


def test_of_several_that_start_together_one_merges(target: Target) -> None:
    everyone: list[Merging] = [target.bench.start(target.job) for _ in range(3)]
    ends = [merging.end() for merging in everyone]
    won = [end for end in ends if end.exit_code == 0]
    lost = [end.error["code"] for end in ends if end.exit_code != 0]
    assert len(won) == 1
    assert set(lost) <= {"merge.in-progress", "merge.exists"}
    target.is_right()
