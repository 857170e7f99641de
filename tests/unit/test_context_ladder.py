"""The ladder of contexts: which lengths fit, for how many users, on the devices of a choice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.public_machines import gpu, machine
from fixtures.recommendation_cases import situation_of
from fixtures.situation import Expected

from quantui.domain.choosing.context_ladder import ContextLadder, rung_lengths
from quantui.domain.recommend import recommend


def situation(machine: str, model: str, *, users: int = 4, context: int = 8192):
    expected = Expected("", machine, model, "balanced", users, context, frozenset(), "", "")
    return situation_of(expected)


def ladder_of(here):
    found = recommend(here)
    return found, ContextLadder(here, found.context, found.users)


def test_the_rungs_double_up_to_what_the_model_was_made_for_and_hold_the_asked_length():
    assert rung_lengths(40960, 5000) == (2048, 4096, 5000, 8192, 16384, 32768, 40960)


def test_a_model_that_does_not_say_how_long_gets_a_ladder_all_the_same():
    assert rung_lengths(None, 8192)[-1] == 131072


def test_a_model_of_short_contexts_has_lower_rungs():
    assert rung_lengths(1024, 1024) == (256, 512, 1024)


def test_the_asked_rung_says_what_the_recommendation_says():
    found, ladder = ladder_of(situation("4090", "qwen3-30b-a3b"))
    for choice in found.choices:
        rung = next(one for one in ladder.rungs(choice) if one.context == found.context)
        assert rung.verdict == choice.verdict, choice.method
        assert rung.fit.weights == choice.fit.weights


def test_longer_contexts_never_hold_more_users():
    found, ladder = ladder_of(situation("4090", "qwen3-30b-a3b"))
    held = [rung.held for rung in ladder.rungs(found.choices[0])]
    assert held == sorted(held, reverse=True)
    assert held[0] == 4 > held[-1] >= 1


def test_what_is_refused_for_its_memory_has_a_ladder_too():
    found, ladder = ladder_of(situation("4090", "llama-3.1-70b"))
    refused = next(one for one in found.refused if one.code == "memory")
    assert {rung.verdict for rung in ladder.rungs(refused)} == {"does not fit"}


def test_what_is_refused_for_another_reason_has_none():
    found, ladder = ladder_of(situation("a100-80", "qwen2.5-7b"))
    refused = next(one for one in found.refused if one.code == "hardware")
    assert ladder.rungs(refused) == ()


@pytest.mark.parametrize("users", [1, 16])
def test_other_users_give_the_ladder_that_a_recommendation_for_them_would(users):
    here = situation("4090", "qwen3-30b-a3b")
    found, ladder = ladder_of(here)
    again = ContextLadder(replace(here, users=users), found.context, users)
    choice = found.choices[0]
    assert ladder.at(found.context, users).rungs(choice) == again.rungs(choice)


def test_a_choice_over_two_cards_is_counted_on_two_cards():
    two = machine(gpu("a100-80", 0), gpu("a100-80", 1))
    found, ladder = ladder_of(replace(situation("a100-80", "llama-3.1-70b"), hardware=two))
    split = next(one for one in found.choices if one.tensor_parallel == 2)
    rung = next(one for one in ladder.rungs(split) if one.context == found.context)
    assert rung.fit.weights == split.fit.weights
