"""SIGTERM and SIGINT end a merge within a second, and nothing of it is left: no folder, no process, no file.

To that second comes what the file system takes to remove files: a moment as a rule, and a second or more for a
gigabyte where it tells the disk of every block at once (ext4 without a journal, mounted with ``discard``).
QUANTUI_CANCEL_RUNS says how many times it is tried (3), QUANTUI_KILL_SEED when the signals come.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.large_merge import write_merge
from fixtures.merge_runs import Bench, Merging, digests, journaled
from fixtures.takes_minutes import rarely

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psutil
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

RUNS = int(os.environ.get("QUANTUI_CANCEL_RUNS", "3"))
SEED = int(os.environ.get("QUANTUI_KILL_SEED", time.time_ns() % 1_000_000))
SIGNALS = (signal.SIGTERM, signal.SIGINT)
WITHIN_S = 1.0
STOPPED = 130

Moment = tuple[signal.Signals, str, float]
"""A signal, the phase it comes in, and the seconds after that phase began."""


def moments(count: int) -> list[Moment]:
    chance = random.Random(SEED)
    phases = ["merge", "verify", "merge"]
    longest = {"merge": 0.5, "verify": 0.2}
    return [
        (SIGNALS[n % 2], phases[n % 3], round(chance.uniform(0, longest[phases[n % 3]]), 3))
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def model(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_merge(tmp_path_factory.mktemp("large"), 11)


@pytest.fixture(scope="module")
def removing(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that this file system takes to remove as many bytes as a merge has written."""
    folder = tmp_path_factory.mktemp("removing")
    for number in range(6):
        with (folder / str(number)).open("wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    began = time.monotonic()
    shutil.rmtree(folder)
    return time.monotonic() - began


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def job(model: dict[str, Any], place: Path) -> dict[str, Any]:
    return {**model, "out": str(place / "out")}


@pytest.fixture
def bench(worker: Worker, tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "runs").mkdir()
    bench = Bench(worker.python, tmp_path / "runs")
    yield bench
    assert bench.temporary_files() == []


def stop(merging: Merging, number: signal.Signals, removing: float) -> int:
    """Send it; returns the exit code once everything is gone, in time."""
    asked = time.monotonic()
    merging.process.send_signal(number)
    merging.process.wait(timeout=30)
    took = time.monotonic() - asked
    assert took < WITHIN_S + 2 * removing
    while (left := merging.processes()) and time.monotonic() - asked < took + WITHIN_S:
        time.sleep(0.01)
    assert left == []
    return merging.process.returncode


@pytest.mark.parametrize(
    "moment",
    moments(RUNS),
    ids=lambda moment: f"seed {SEED}: {moment[0].name} {moment[2]} s into {moment[1]}",
)
def test_a_stopped_merge_leaves_nothing(
    bench: Bench, job: dict[str, Any], place: Path, moment: Moment, removing: float
) -> None:
    number, phase, delay = moment
    merging = bench.start(job)
    merging.until_phase(phase)
    if phase == "merge":
        # The phase begins with loading torch, which holds every thread up.
        merging.until((place / "out.partial/merge_journal.jsonl").exists)
    time.sleep(delay)
    if merging.process.poll() is None:
        assert stop(merging, number, removing) in (STOPPED, 0)
    # Whole or absent: the signal may have come when all was done.
    assert [path.name for path in place.iterdir()] == (["out"] if (place / "out").exists() else [])
    if (place / "out").exists():
        assert (place / "out/merge_proof.json").exists()
        assert len(list((place / "out").glob("*.safetensors"))) == 6
    assert "Traceback" not in merging.log
    assert [event for event in merging.events() if event["type"] == "error"] == []


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("during", signal.SIGTERM),
        ("after", signal.SIGINT),
        *rarely(("during", signal.SIGINT), ("after", signal.SIGTERM)),
    ],
)
def test_a_signal_at_the_very_end_does_not_empty_what_gets_its_name(
    bench: Bench,
    job: dict[str, Any],
    place: Path,
    tmp_path: Path,
    when: str,
    number: signal.Signals,
    removing: float,
) -> None:
    steps = tmp_path / "steps.json"
    assert bench.run(job, {"count": str(steps)}).result
    whole = digests(place / "out")
    shutil.rmtree(place / "out")
    names = json.loads(steps.read_text())
    naming = len(names) - 1 - names[::-1].index("rename")
    go_on = tmp_path / "go on"
    merging = bench.start(job, {"hold": naming + (when == "after"), "until": str(go_on)})
    if when == "during":
        there = place / "out.partial"
        merging.until((there / "merge_proof.json").exists)
        merging.until(lambda: not (there / "merge_journal.jsonl").exists())
        # Reading it takes longer than the few flushes until the worker waits before the renaming.
        assert digests(there) == whole
        merging.process.send_signal(number)
        time.sleep(0.3)
        assert digests(there) == whole
        go_on.touch()
        assert merging.end().exit_code in (STOPPED, 0)
    else:
        merging.until((place / "out").exists)
        assert stop(merging, number, removing) == STOPPED
    assert digests(place / "out") == whole
    assert [path.name for path in place.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [signal.SIGTERM, *rarely(signal.SIGINT)])
def test_what_an_earlier_run_left_goes_too(
    bench: Bench, job: dict[str, Any], place: Path, number: signal.Signals, removing: float
) -> None:
    partial = place / "out.partial"
    for stopped_by in (signal.SIGKILL, number):
        merging = bench.start(job)
        there = len(journaled(partial))
        merging.until_phase("merge")
        merging.until(lambda there=there: len(journaled(partial)) > there)
        stop(merging, stopped_by, removing)
    assert list(place.iterdir()) == []


# A child of the worker ----------------------------------------------------------------------------


def child_of(merging: Merging, program: str) -> psutil.Process:
    """The worker that this worker started, once it does its work."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found[:] = [
            process
            for process in merging.processes()
            if any(part.endswith(program) for part in process.cmdline())
            and any("torch" in mapped.path for mapped in process.memory_maps())
        ]
        return bool(found)

    assert merging.until(is_there), merging.log
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, *rarely(signal.SIGTERM)])
def test_the_process_that_describes_the_model_ends_with_the_worker(
    bench: Bench,
    job: dict[str, Any],
    place: Path,
    tmp_path: Path,
    number: signal.Signals,
    removing: float,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(job["base"], base)
    config = json.loads((base / "config.json").read_text())
    del config["tie_word_embeddings"]
    (base / "config.json").write_text(json.dumps(config))
    merging = bench.start({**job, "base": str(base)})
    child_of(merging, "describe_model.py")
    assert stop(merging, number, removing) != 0
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, *rarely(signal.SIGTERM)])
def test_the_process_that_compares_answers_ends_with_the_worker(
    bench: Bench, job: dict[str, Any], place: Path, number: signal.Signals, removing: float
) -> None:
    merging = bench.start({**job, "verify": "logits", "prompts": ["Hello"]})
    child_of(merging, "compare_logits.py")
    code = stop(merging, number, removing)
    if number == signal.SIGKILL:
        assert len(journaled(place / "out.partial")) == 6
    else:
        assert code == STOPPED
        assert list(place.iterdir()) == []
