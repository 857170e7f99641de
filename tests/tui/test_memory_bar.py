"""The stacked bar: every part has its cells and its letter, and what does not fit is seen to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.recommendation_cases import situation_of
from fixtures.situation import Expected

from quantui.domain.choosing.context_ladder import ContextLadder
from quantui.domain.recommend import recommend
from quantui.domain.units import GIB
from quantui.tui.widgets.context_ladder import rung_text, short_length
from quantui.tui.widgets.memory_bar import (
    OVER,
    bar_content,
    cells,
    device_total,
    legend,
    stack_of,
    wrapped,
)


def found(machine: str, model: str, users: int = 4):
    expected = Expected("", machine, model, "balanced", users, 8192, frozenset(), "", "")
    return recommend(situation_of(expected))


@pytest.fixture
def fitting():
    return found("4090", "qwen3-30b-a3b").choices[0].fit


@pytest.fixture
def lacking():
    refused = found("4090", "llama-3.1-70b").refused
    return next(one.fit for one in refused if one.code == "memory")


def stack(fit):
    return stack_of(fit, device_total(fit, None))


def test_the_parts_are_the_whole_card(fitting):
    whole = stack(fitting)
    assert sum(part.bytes for part in whole.parts) == pytest.approx(whole.total, rel=0.001)
    assert whole.over == 0


def test_the_cache_is_parted_into_what_is_asked_and_what_is_spare(fitting):
    parts = {part.letter: part.bytes for part in stack(fitting).parts}
    assert parts["K"] == pytest.approx(4 * 8192 * fitting.kv_bytes_per_token, rel=0.01)
    assert parts["K"] + parts["k"] == pytest.approx(fitting.kv_cache.bytes, rel=0.01)


def test_each_cell_is_an_equal_part_of_the_card(fitting):
    drawn = cells(stack(fitting), 100)
    assert len(drawn) == 100
    share = 100 * fitting.weights.bytes / device_total(fitting, None)
    assert drawn.count("W") == pytest.approx(share, abs=1)


def test_what_does_not_fit_runs_past_the_card(lacking):
    over = stack(lacking)
    drawn = cells(over, 80)
    assert over.over > GIB
    assert drawn[-1] == OVER
    assert "too much" in legend(over)[0].plain


def test_every_part_that_has_room_shows_its_letter(fitting):
    text = bar_content(stack(fitting), 76).plain
    assert len(text) == 76
    assert {"W", "K", "k"} <= set(text)


def test_parts_differ_without_colours(fitting):
    kinds = {part.glyph for part in stack(fitting).parts}
    assert len(kinds) == len(stack(fitting).parts)


def test_other_processes_take_their_place_first(fitting):
    others = replace(fitting, others=replace(fitting.others, bytes=4 * GIB))
    assert cells(stack_of(others, 24 * GIB), 48)[0] == "O"


def test_a_device_of_unknown_size_is_drawn_by_what_is_needed(fitting):
    drawn = cells(stack_of(replace(fitting, budget_bytes=None), None), 40)
    assert len(drawn) == 40
    assert OVER not in drawn


def test_the_legend_breaks_between_its_pieces(fitting):
    for line in wrapped(legend(stack(fitting)), 60):
        assert line.cell_length <= 60


def test_lengths_are_short_where_they_are_round():
    assert [short_length(n) for n in (2048, 40960, 131072, 5000, 512)] == [
        "2k",
        "40k",
        "128k",
        "5000",
        "512",
    ]


def test_a_rung_tells_its_verdict_by_a_mark_and_the_users_it_holds():
    expected = Expected("", "4090", "qwen3-30b-a3b", "balanced", 4, 8192, frozenset(), "", "")
    here = situation_of(expected)
    answer = recommend(here)
    rungs = ContextLadder(here, 8192, 4).rungs(answer.choices[0])
    told = {rung.context: rung_text(rung, 4) for rung in rungs}
    assert told[8192] == "8k✓"
    assert told[32768] == "32k~1/4"
