"""What is recommended where: a table of machines, models and uses, each expectation with its published source.

The situations are in fixtures/situations_*.py. An expectation names the methods that may come first: one where sources
decide, several where they do not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import pytest
from fixtures.never_recommended import RULES
from fixtures.public_machines import CARDS
from fixtures.public_models import CONFIGS
from fixtures.recommendation_cases import situation_of
from fixtures.situation import Expected
from fixtures.situations_server import A100, HOPPER
from fixtures.situations_server import BLACKWELL as BLACKWELL_SERVERS
from fixtures.situations_special import ADAPTERS, STORED, USES
from fixtures.situations_workstation import ADA, AMPERE, BLACKWELL, NO_CARD, TURING

from quantui.domain.methods import methods
from quantui.domain.recommend import recommend

if TYPE_CHECKING:
    from quantui.domain.recommend import Recommendation

TABLE: tuple[Expected, ...] = (
    *TURING,
    *AMPERE,
    *ADA,
    *BLACKWELL,
    *NO_CARD,
    *A100,
    *HOPPER,
    *BLACKWELL_SERVERS,
    *STORED,
    *ADAPTERS,
    *USES,
)
BY_NAME = {expected.name: expected for expected in TABLE}
EVERY = pytest.mark.parametrize("name", BY_NAME)


@cache
def answer(name: str) -> Recommendation:
    return recommend(situation_of(BY_NAME[name]))


def test_expectations_name_methods_of_the_catalogue():
    named = {name for case in TABLE for name in (*case.best, *case.refused, *case.never)}
    assert named <= set(methods())


def test_the_table_has_at_least_sixty_situations_of_different_names_each_with_a_source():
    assert len(BY_NAME) == len(TABLE) >= 60
    assert all(expected.source and expected.because for expected in TABLE)


@EVERY
def test_the_first_choice_is_what_the_source_says(name):
    expected, found = BY_NAME[name], answer(name)
    first = found.choices[0].method if found.choices else None
    told = [f"{one.method} {one.score:.3f} {one.verdict}" for one in found.choices[:5]]
    if not expected.best:
        assert first is None, f"{expected.because}; got {told}"
    else:
        assert first in expected.best, f"{expected.because} ({expected.source}); got {told}"


@EVERY
def test_what_cannot_work_is_refused_with_a_reason(name):
    expected, found = BY_NAME[name], answer(name)
    refused = {one.method: one for one in found.refused}
    for method in expected.refused:
        assert method in refused, f"{method}: {expected.because}"
        assert refused[method].reasons
    chosen = {one.method for one in found.choices}
    assert not chosen & set(expected.never)


@EVERY
def test_the_devices_and_the_split_are_those_expected(name):
    expected, found = BY_NAME[name], answer(name)
    if not found.choices:
        return
    first = found.choices[0]
    if expected.gpus is not None:
        assert first.gpus == expected.gpus
    if expected.tp is not None:
        assert first.tensor_parallel == expected.tp
    if expected.adapter is not None:
        assert first.serve_adapter == expected.adapter
    assert found.on_cpu == (expected.on_cpu or expected.machine.startswith("cpu"))


@EVERY
def test_every_method_of_the_catalogue_is_answered_once(name):
    found = answer(name)
    counted = Counter([one.method for one in (*found.choices, *found.refused)])
    assert counted == Counter(methods().keys())


@EVERY
def test_only_what_fits_is_a_choice_and_every_choice_says_why_and_at_what_cost(name):
    for choice in answer(name).choices:
        assert choice.verdict in ("fits", "tight")
        assert len(choice.reasons) >= 3
        assert any(character.isdigit() for character in choice.reasons[0])
        if choice.way == "make":
            assert choice.needs
            assert any(step.kind in ("make", "train") for step in choice.cost.steps)
        if choice.way in ("as it is", "in flight"):
            assert choice.ready


@EVERY
def test_every_refusal_says_why_and_whose_word_it_is(name):
    for refusal in answer(name).refused:
        assert refusal.reasons
        assert all(reason.strip() for reason in refusal.reasons)
        assert refusal.source, refusal.method


@EVERY
def test_when_nothing_fits_the_nearest_miss_is_told(name):
    found = answer(name)
    if found.choices or all(one.code != "memory" for one in found.refused):
        assert found.nearest is None
    else:
        assert found.nearest is not None
        assert found.nearest.missing_bytes > 0


def test_the_same_situation_gives_the_same_answer():
    expected = BY_NAME["H100, 8B, five hundred users"]
    assert recommend(situation_of(expected)) == recommend(situation_of(expected))


# What is never recommended: over the whole table, and over every card with every model.


def broken(rule, situation, found):
    cards = {gpu.index: gpu for gpu in situation.hardware.gpus}
    return [
        f"{situation.model_ref} on {situation.hardware.fingerprint()}: {choice.method}"
        for choice in found.choices
        if rule(choice, [cards[index] for index in choice.gpus], situation)
    ]


@cache
def everywhere():
    """Each card alone and four of it, with each model, for many users: what the table does not reach."""
    situations = [
        situation_of(
            Expected("", f"{count}x {card}", model, "many-users", 8, 2048, frozenset(), "", "")
        )
        for card, model, count in product(CARDS, CONFIGS, (1, 4))
    ]
    return [(situation, recommend(situation)) for situation in situations]


@pytest.mark.parametrize("name", RULES)
def test_never_in_the_table(name):
    rule = RULES[name]
    assert not [
        text
        for case, expected in BY_NAME.items()
        for text in broken(rule, situation_of(expected), answer(case))
    ]


@pytest.mark.parametrize("name", RULES)
def test_never_on_any_card_with_any_model(name):
    rule = RULES[name]
    assert not [
        text for situation, found in everywhere() for text in broken(rule, situation, found)
    ]


def test_what_the_engine_lacks_is_refused_as_the_engines():
    lacking = replace(
        situation_of(BY_NAME["3090, 14B, one user"]),
        engine_methods=frozenset({"gptq", "compressed-tensors"}),
        plugins=frozenset(),
    )
    found = recommend(lacking)
    refused = {one.method: one.code for one in found.refused}
    assert refused["bitsandbytes"] == "engine"
    assert refused["fp8_per_tensor"] == "engine"
    assert {one.method for one in found.choices} >= {"gptq", "awq"}
