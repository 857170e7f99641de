"""A run in words: honest estimates, and figures beside what was predicted."""

from __future__ import annotations

import pytest

from quantui.domain.events import Measured, MemorySample
from quantui.domain.run_state import RunState, StepState, reduce
from quantui.domain.run_words import (
    amount_words,
    elapsed_s,
    figure_rows,
    figure_words,
    left_words,
    progress_words,
)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (3 << 30, "bytes", "3.00 GiB"),
        (32768.0, "tokens", "32,768 tokens"),
        (0.004, "s", "0.004 s"),
        (0.25, "s", "0.25 s"),
        (12.5, "", "12.5"),
        (0.0, "s", "0 s"),
    ],
)
def test_a_figure_has_its_unit_and_no_digits_that_say_nothing(value, unit, words):
    assert figure_words(value, unit) == words


def test_bytes_and_other_units_are_told_in_their_own_way():
    assert (
        amount_words(StepState("a", "a", done=1 << 30, total=2 << 30, unit="bytes"))
        == "1.00 GiB of 2.00 GiB"
    )
    assert amount_words(StepState("a", "a", done=3, total=8, unit="tensors")) == "3/8 tensors"
    assert amount_words(StepState("a", "a", done=3, total=None, unit="tensors")) == "3/? tensors"
    assert amount_words(StepState("a", "a")) == ""


def test_a_guess_is_called_one_and_a_rate_gives_the_time_left():
    step = StepState("a", "a", started=0.0, done=10, total=100, unit="layers", progress_since=0.0)
    assert left_words(step, now=1.0) == "estimating..."
    assert left_words(step, now=10.0) == "1 min 30 s left"
    assert progress_words(step, now=10.0) == "10/100 layers, 1 min 30 s left"


def test_the_time_of_a_step_stands_still_when_it_is_done():
    assert elapsed_s(StepState("a", "a"), now=9.0) is None
    assert elapsed_s(StepState("a", "a", status="running", started=4.0), now=9.0) == 5.0
    assert elapsed_s(StepState("a", "a", status="done", started=4.0, seconds=2.0), now=9.0) == 2.0


def test_measured_figures_come_with_their_difference_and_the_peaks_follow():
    state = RunState()
    for event in (
        Measured(at=1.0, name="weights", value=11.0, unit="bytes", source="log", predicted=10.0),
        Measured(at=1.0, name="decoding", value=5.0, unit="tokens/s", source="request"),
        MemorySample(at=1.0, tree_bytes=7, ram_available_bytes=1, gpus=((0, 9, 10),)),
    ):
        state = reduce(event, state)
    rows = figure_rows(state)
    assert [row.name for row in rows] == ["weights", "decoding", "peak RAM", "peak GPU 0"]
    assert rows[0].difference == pytest.approx(0.1)
    assert rows[1].difference is None
