"""What a row of the Method step says, of choices and refusals of any kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.recommendation_cases import situation_of
from fixtures.situation import Expected

from quantui.domain.choosing.recommendation import Cost, Refusal
from quantui.domain.recommend import recommend
from quantui.tui.method_rows import HERE, MODEL, NOWHERE, choice_row, refusal_row, refused_groups
from quantui.tui.method_words import choice_words, refusal_words


def found(variants: tuple[str, ...] = ()):
    expected = Expected(
        "", "4090", "qwen3-30b-a3b", "balanced", 4, 8192, frozenset(), "", "", variants=variants
    )
    return recommend(situation_of(expected))


@pytest.fixture
def variant():
    return next(one for one in found(("awq:16",)).choices if one.variant is not None)


@pytest.mark.parametrize("width", [76, 87, 120])
def test_a_row_is_as_wide_as_there_is_room(width):
    for choice in found().choices:
        assert choice_row(choice, width, None).cell_length <= width


def test_somebodys_checkpoint_is_named_with_who_made_it(variant):
    assert "(publisher)" in choice_row(variant, 120, None).plain
    assert variant.variant.ref in choice_words(variant, (), 76, 8).plain


def test_a_download_is_told_by_its_size(variant):
    assert "↓14.90G" in choice_row(variant, 100, None).plain


def test_names_of_strangers_carry_no_escapes_and_no_markup(variant):
    stranger = replace(
        variant.variant, publisher="[red]\x1b[31mevil\x1b[0m", ref="[b]x[/b]\x1b]0;t\x07"
    )
    row = choice_row(replace(variant, variant=stranger), 120, None)
    assert "([red]evil)" in row.plain
    told = choice_words(replace(variant, variant=stranger), (), 76, 8).plain
    assert "[b]x[/b]" in told
    assert "\x1b" not in row.plain + told


def test_what_cannot_be_gone_to_from_here_says_so_in_the_row(variant):
    lacking = replace(variant, ready=False, needs="on a larger machine")
    assert "✗ needs" in choice_row(lacking, 80, None).plain
    assert "on a larger machine" in choice_words(lacking, (), 76, 8).plain


def test_work_of_days_fits_its_column():
    choice = replace(found().choices[0], cost=Cost(900_000.0, 0, 0, found().choices[0].cost.steps))
    assert choice_row(choice, 80, None).plain.rstrip().endswith("make 250h")


def test_a_refusal_does_not_repeat_its_title():
    refusal = Refusal("x", "FP8 W8A8", "hardware", ("FP8 W8A8 needs compute capability 8.9.",))
    row = refusal_row(refusal, 80).plain
    assert row.count("FP8 W8A8") == 1
    assert "needs compute capability 8.9." in row


def test_what_this_machine_refuses_stands_before_what_all_refuse():
    headings = [heading for heading, _ in refused_groups(found().refused)]
    assert [one.rpartition(" (")[0] for one in headings] == [HERE, MODEL, NOWHERE]


def test_what_there_is_no_room_for_is_behind_a_key():
    choice = found().choices[0]
    short, whole = (
        choice_words(choice, ("a note",), 76, 4).plain,
        choice_words(choice, ("a note",), 76, 99).plain,
    )
    assert short.endswith("w: all")
    assert short.count("\n") == 3
    assert whole.endswith("a note")


def test_a_refusal_tells_what_to_take_instead_and_whose_word_it_is():
    refusal = Refusal("x", "X", "engine", ("It is gone.",), ("awq", "gptq"), "the docs")
    told = refusal_words(refusal, 76, 9).plain
    assert "awq, gptq" in told
    assert "the docs" in told
