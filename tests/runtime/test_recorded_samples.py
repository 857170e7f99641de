"""A record keeps every memory sample of the work, few of a server that is held, and loses no peak by it."""

from __future__ import annotations

import json
import random

import pytest

from quantui.domain.events import (
    MemorySample,
    Notice,
    RunFinished,
    ServerReady,
    StepFinished,
    StepStarted,
    from_dict,
)
from quantui.domain.run_state import RunState, reduce
from quantui.runtime.recorded_samples import RecordedSamples
from quantui.runtime.recorder import Recorder, RunFolder

TOTAL = 100_000
LOADED = [
    StepStarted(at=0.0, step="serve"),
    ServerReady(at=0.0, url="u", model="m", pid=1, seconds=1.0),
    StepFinished(at=0.0, step="serve", seconds=1.0, result={}),
]
END = RunFinished(at=1e6, outcome="ok", exit_code=0, seconds=1.0)


def sample(at, tree=50_000, free=40_000, gpu=1000, total=TOTAL):
    return MemorySample(at=at, tree_bytes=tree, ram_available_bytes=free, gpus=((0, gpu, total),))


def kept(events):
    chosen = RecordedSamples(TOTAL)
    return [one for event in events for one in chosen.admit(event)]


def times(events):
    return [round(one.at, 3) for one in kept(events) if isinstance(one, MemorySample)]


def state_of(events):
    state = RunState()
    for event in events:
        state = reduce(event, state)
    return state


def test_while_a_step_works_every_sample_is_kept():
    samples = [sample(n / 10) for n in range(50)]
    assert len(times([LOADED[0], *samples])) == 50
    check = StepStarted(at=0.0, step="check")
    assert len(times([*LOADED, check, *samples])) == 50


def test_of_a_held_server_one_in_ten_seconds_is_kept_while_nothing_changes():
    assert times([*LOADED, *(sample(n / 10) for n in range(350))]) == [0.0, 10.0, 20.0, 30.0]


@pytest.mark.parametrize("change", [
    {"tree": 50_500}, {"free": 39_500}, {"gpu": 1500}, {"tree": None}, {"free": None},
])  # fmt: skip
def test_a_change_of_half_a_percent_is_kept_at_once(change):
    assert times([*LOADED, sample(1.0), sample(1.1), sample(1.2, **change)]) == [1.0, 1.2]


@pytest.mark.parametrize("change", [{"tree": 50_499}, {"free": 39_501}, {"gpu": 501}])
def test_less_than_that_waits(change):
    assert times([*LOADED, sample(1.0), sample(1.1), sample(1.2, **change)]) == [1.0]


def test_slow_growth_is_kept_once_it_adds_up():
    slow = [sample(1 + n / 100, tree=50_000 + 100 * n) for n in range(11)]
    assert times([*LOADED, *slow]) == [1.0, 1.05, 1.1]


def test_a_gpu_that_is_lost_is_kept_at_once():
    lost = MemorySample(at=1.1, tree_bytes=50_000, ram_available_bytes=40_000)
    assert times([*LOADED, sample(1.0), lost]) == [1.0, 1.1]


def test_a_clock_that_was_set_back_stops_nothing():
    assert times([*LOADED, sample(100.0), sample(5.0)]) == [100.0, 5.0]


def test_what_was_held_back_stands_before_the_next_event():
    told = Notice(at=1.3, level="info", text="x")
    events = [*LOADED, sample(1.0), sample(1.1, tree=50_300), sample(1.2), told]
    assert times(events) == [1.0, 1.1, 1.2]
    assert kept(events)[-1] == told


@pytest.mark.parametrize("seed", range(20))
def test_the_state_at_the_end_is_that_of_all_samples(seed):
    chance = random.Random(seed)
    level, events = 50_000, list(LOADED)
    for n in range(2000):
        level += chance.choice((-90, -20, 0, 0, 0, 20, 90))
        events.append(sample(n / 10, tree=level, gpu=level // 3))
        if chance.random() < 0.002:
            events.append(Notice(at=n / 10, level="info", text=str(n)))
    events.append(END)
    recorded = kept(events)
    assert state_of(recorded) == state_of(events)
    assert len(recorded) < len(events) / 5
    assert [one.at for one in recorded] == sorted(one.at for one in recorded)


def test_a_record_that_is_closed_in_the_middle_has_the_last_sample():
    folder = RunFolder.create()
    recorder = Recorder(folder)
    for event in (*LOADED, sample(1.0), sample(1.1), sample(1.2)):
        recorder.write(event)
    recorder.close()
    lines = (folder.path / "events.jsonl").read_text().splitlines()
    assert [from_dict(json.loads(line)).at for line in lines] == [0.0, 0.0, 0.0, 1.0, 1.2]
