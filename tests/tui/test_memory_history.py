"""The history of memory: nothing that was high is ever forgotten, however long it goes on."""

from __future__ import annotations

import random

from quantui.domain.events import MemorySample, StepPhase, StepStarted
from quantui.tui.memory_history import MOST_SAMPLES, RAM, MemoryHistory, Series


def sampled(*samples: tuple[float, int]) -> Series:
    series = Series()
    for at, used in samples:
        series.add(at, used, 100)
    return series


def week(every_s: float) -> tuple[Series, list[tuple[float, int]]]:
    """A week of samples with a few spikes of a single sample."""
    dice = random.Random(4)
    samples = []
    at = 1000.0
    while at < 1000.0 + 7 * 86400:
        samples.append((at, dice.randrange(1000) if dice.random() > 1e-4 else 10_000))
        at += every_s
    return sampled(*samples), samples


def test_a_column_has_the_highest_use_of_its_span():
    series = sampled((0.0, 3), (0.5, 9), (1.0, 4), (1.5, 5), (2.5, 1))
    assert series.columns(0.0, 3.0, 3) == [9, 5, 1]


def test_a_span_without_a_sample_has_the_one_before():
    assert sampled((0.0, 3), (3.5, 4)).columns(0.0, 4.0, 4) == [3, 3, 3, 4]


def test_nothing_is_drawn_before_the_first_sample_and_after_the_last():
    assert sampled((1.5, 3)).columns(0.0, 4.0, 4) == [None, 3, None, None]


def test_a_week_at_ten_a_second_stays_small_and_keeps_every_peak():
    series, samples = week(5.0)
    assert len(series) <= MOST_SAMPLES
    assert series.peak == 10_000
    begin, end = samples[0][0], samples[-1][0]
    for width in (20, 80, 137, 300):
        columns = series.columns(begin, end, width)
        span = (end - begin) / width
        for at, used in samples:
            column = min(int((at - begin) / span), width - 1)
            shown = columns[column]
            assert shown is not None
            assert shown >= used


def test_thinning_leaves_the_newest_as_they_came():
    series = sampled(*((float(at), at % 7) for at in range(MOST_SAMPLES + 5)))
    last = float(MOST_SAMPLES + 4)
    assert series.columns(last - 9, last + 1, 10) == [
        float(at % 7) for at in range(MOST_SAMPLES - 5, MOST_SAMPLES + 5)
    ]


def test_a_device_that_answered_and_no_longer_does_is_lost_until_it_answers_again():
    history = MemoryHistory()
    history.heard(MemorySample(at=1.0, tree_bytes=5, ram_available_bytes=9, gpus=((0, 7, 24),)))
    history.heard(MemorySample(at=2.0, tree_bytes=5, ram_available_bytes=9, gpus=()))
    assert (history.series(0).lost_at, history.series(0).now) == (2.0, None)
    history.heard(MemorySample(at=3.0, tree_bytes=5, ram_available_bytes=9, gpus=((0, 8, 24),)))
    assert (history.series(0).lost_at, history.series(0).now) == (None, 8)


def test_a_device_that_never_answered_is_not_lost():
    series = Series()
    series.lose(1.0)
    assert series.lost_at is None


def test_phases_are_marked_where_they_begin():
    history = MemoryHistory()
    history.heard(StepStarted(at=1.0, step="serve"))
    history.heard(StepPhase(at=2.0, step="serve", phase="load"))
    history.heard(StepPhase(at=3.0, step="serve", phase="load"))
    assert [(mark.at, mark.label) for mark in history.marks] == [(1.0, "serve"), (2.0, "load")]


def test_the_run_in_ram_is_a_series_beside_the_gpus():
    history = MemoryHistory()
    history.heard(
        MemorySample(at=1.0, tree_bytes=5, ram_available_bytes=9, gpus=((1, 7, 24), (0, 6, 24)))
    )
    assert history.keys() == (0, 1, RAM)
