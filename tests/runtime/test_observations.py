"""The file of observations: appended to by several at once, bounded, and no worse for damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from quantui.domain.fitting.calibration import Expectation, Figures, Load, Observation
from quantui.runtime import observations
from quantui.runtime.observations import (
    append_observation,
    calibration,
    observations_file,
    own_speeds,
    read_observations,
)

LOAD = Load("1x card", "vllm-cuda", "0.32.0", "bitsandbytes", "content")
SEEN = Observation(
    at=1.0,
    expected=Expectation(
        load=LOAD,
        predicted=Figures(weights=10, kv_cache=50, rest=20, kv_tokens=5),
        on_cpu=False,
        kv_cache_given=False,
        device_bytes=100,
        max_model_len=2048,
        model_ref="owner/model",
        gpus=(0, 1),
    ),
    outcome="ok",
    measured=Figures(weights=10, kv_cache=45, kv_tokens=4),
    load_seconds=30.5,
    tokens_per_s=12.5,
    answer_tokens=16,
)


def test_what_is_written_is_read():
    other = replace(SEEN, at=2.0, outcome="out-of-memory", tokens_per_s=None)
    assert append_observation(SEEN)
    assert append_observation(other)
    assert read_observations() == (SEEN, other)


def test_without_a_file_there_is_nothing():
    assert read_observations() == ()
    assert calibration(LOAD) is None
    assert own_speeds(LOAD) == ()


def test_it_is_the_owners_alone():
    append_observation(SEEN)
    assert observations_file().stat().st_mode & 0o077 == 0


def test_what_was_learnt_is_given():
    append_observation(SEEN)
    found = calibration(LOAD)
    assert found is not None
    assert (found.residual_bytes, found.runs) == (5, 1)
    (run,) = own_speeds(LOAD)
    assert (run.tokens_per_s, run.method, run.context) == (12.5, "bitsandbytes", 16)


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe not json\n",
        b"[]\n",
        b'{"format": 1}\n',
        b'{"format": 99, "load": {}}\n',
        b"[" * 100_000 + b"\n",
        b"\n\n",
    ],
)
def test_damaged_lines_are_passed_over(damage):
    append_observation(SEEN)
    with observations_file().open("ab") as file:
        file.write(damage)
    append_observation(replace(SEEN, at=2.0))
    assert [seen.at for seen in read_observations()] == [1.0, 2.0]


@pytest.mark.parametrize(
    "change",
    [
        {"at": "now"},
        {"at": float("nan")},
        {"at": 1e11 * 9},
        {"outcome": "fine"},
        {"tokens_per_s": -1},
        {"measured": {"weights": "10"}},
        {"expected": None},
        {"expected": {"on_cpu": 1}},
        {"expected": {"device_bytes": 1.5}},
        {"expected": {"gpus": "01"}},
        {"expected": {"load": None}},
        {"expected": {"load": {**asdict(LOAD), "tensor_parallel": True}}},
        {"expected": {"model_ref": None}},
    ],
)
def test_a_line_of_wrong_types_is_passed_over(change):
    append_observation(SEEN)
    record = json.loads(observations_file().read_text())
    if isinstance(change.get("expected"), dict):
        change = {"expected": {**record["expected"], **change["expected"]}}
    observations_file().write_text(json.dumps({**record, **change}) + "\n")
    assert read_observations() == ()


def test_a_line_that_was_cut_off_takes_no_other_with_it():
    append_observation(SEEN)
    whole = observations_file().read_bytes()
    observations_file().write_bytes(whole + whole[:40])
    append_observation(replace(SEEN, at=2.0))
    assert [seen.at for seen in read_observations()] == [1.0, 2.0]


def test_it_is_shortened_to_its_newest_half(monkeypatch):
    append_observation(SEEN)
    size = observations_file().stat().st_size
    monkeypatch.setattr(observations, "MOST_BYTES", 20 * size)
    for number in range(100):
        append_observation(replace(SEEN, at=float(number)))
        assert observations_file().stat().st_size <= 22 * size
    times = [seen.at for seen in read_observations()]
    assert times == [float(number) for number in range(100 - len(times), 100)]
    assert len(times) >= 9
    assert [path.name for path in observations_file().parent.glob("*.partial")] == []


def test_several_quantui_write_at_once_and_lose_nothing(own_home):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from dataclasses import replace\n"
        "from test_observations import SEEN\n"
        "from quantui.runtime.observations import append_observation\n"
        "for n in range(50): assert append_observation(replace(SEEN, at=float(n)))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], env={**os.environ}) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert sorted(seen.at for seen in read_observations()) == sorted(4 * list(range(50)))


def test_a_place_that_cannot_be_written_is_no_failure(own_home):
    own_home.write_text("a file where the folder should be")
    assert not append_observation(SEEN)
    assert read_observations() == ()


def test_a_line_without_end_is_not_written():
    expected = replace(SEEN.expected, model_ref="x" * 10_000)
    assert not append_observation(replace(SEEN, expected=expected))
    assert not observations_file().exists()
