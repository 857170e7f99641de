"""What was answered, what an answer clears, and the draft that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.recommendation_cases import situation_of
from fixtures.situation import Expected

from quantui.domain.answers import (
    Answers,
    answers_of,
    best_from_here,
    draft_of,
    key_of,
    why_not_from_here,
    with_options,
)
from quantui.domain.draft import Draft
from quantui.domain.recommend import recommend


def best():
    expected = Expected("", "3090", "llama-3.1-8b", "balanced", 1, 4096, frozenset(), "", "")
    return recommend(situation_of(expected)).choices[0]


def test_a_new_model_clears_its_adapter_its_method_and_options_of_quantization():
    answers = Answers(model="a", adapter="lora", adapter_revision="main", method="awq")
    answers = answers.with_option("quantization", "group_size", 64)
    answers = answers.with_option("serve", "port", 9000)
    changed, cleared = answers.changed(model="b")
    assert changed == Answers(model="b", options={("serve", "port"): 9000})
    assert cleared == ("the adapter", "the method", "the options of quantization")


def test_a_model_and_its_adapter_can_be_set_at_once():
    changed, cleared = Answers().changed(model="a", adapter="lora", adapter_revision="v1")
    assert (changed.model, changed.adapter, changed.adapter_revision) == ("a", "lora", "v1")
    assert cleared == ()


def test_the_same_answer_again_clears_nothing():
    answers = Answers(model="a", adapter="lora", method="awq")
    assert answers.changed(model="a") == (answers, ())


def test_another_use_case_forgets_the_context_that_was_asked_for_it():
    changed, cleared = Answers(context=4096, users=8).changed(use_case="long-context")
    assert (changed.context, changed.users) == (None, None)
    assert cleared == ("the context length", "the number of users")


def test_other_gpus_clear_the_method_and_keep_the_model():
    changed, cleared = Answers(model="a", method="awq").changed(gpus=(1,))
    assert (changed.model, changed.method, cleared) == ("a", None, ("the method",))


def test_an_option_is_set_and_unset():
    answers = Answers().with_option("serve", "port", 9000)
    assert answers.options == {("serve", "port"): 9000}
    assert answers.with_option("serve", "port", None) == Answers()


def test_the_draft_names_the_model_the_method_and_the_context():
    choice = best()
    answers = Answers(model="owner/model", revision="main")
    draft = draft_of(answers, choice, 8192, choice.gpus)
    assert (draft.model.id, draft.model.revision) == ("owner/model", "main")
    assert draft.quantization.method == choice.method
    assert draft.serve.max_model_len == 8192
    assert draft.serve.visible_devices == ()


def test_some_of_the_gpus_are_named_in_the_draft():
    choice = best()
    every = (*choice.gpus, 97)
    assert draft_of(Answers(model="m"), choice, 4096, every).serve.visible_devices == choice.gpus


def test_somebodys_checkpoint_takes_the_models_place():
    choice = replace(best(), variant=_variant(path=None))
    draft = draft_of(Answers(model="owner/model", revision="main"), choice, 4096, choice.gpus)
    assert (draft.model.id, draft.model.revision) == ("other/model-AWQ", "abc")
    assert draft.quantization.method == "none"
    assert key_of(choice) == f"{choice.method}=other/model-AWQ"


def test_a_checkpoint_on_this_machine_is_named_by_its_folder_and_has_no_revision():
    choice = replace(best(), variant=_variant(path="/models/awq"))
    draft = draft_of(Answers(model="owner/model"), choice, 4096, choice.gpus)
    assert (draft.model.id, draft.model.revision) == ("/models/awq", None)


@pytest.mark.parametrize(
    ("parallel", "option", "value"),
    [
        ({"tensor_parallel": 2}, "tensor_parallel", 2),
        ({"pipeline_parallel": 2}, "extra_args", {"pipeline-parallel-size": 2}),
    ],
)
def test_a_split_over_gpus_is_in_the_draft(parallel, option, value):
    choice = replace(best(), **parallel)
    assert getattr(draft_of(Answers(model="m"), choice, 4096).serve, option) == value


def test_options_set_by_hand_come_last():
    choice = best()
    answers = Answers(model="m").with_option("serve", "max_model_len", 512)
    assert draft_of(answers, choice, 8192).serve.max_model_len == 512
    assert with_options(Draft(), {("serve", "port"): 1}).serve.port == 1


def _variant(path):
    from quantui.domain.choosing.variants import Variant

    return Variant(
        "other/model-AWQ",
        "other",
        "awq",
        "awq",
        4,
        "hub",
        "owner/model",
        (),
        revision="abc",
        path=path,
    )


def test_a_checkpoint_that_is_not_there_and_cannot_be_made_is_not_gone_to_from_here():
    lacking = replace(best(), ready=False, needs="quantui makes it, on a larger machine")
    assert why_not_from_here(lacking) == "quantui makes it, on a larger machine"
    assert why_not_from_here(best()) == ""


def test_an_adapter_beside_a_quantized_checkpoint_is_not_gone_to_from_here():
    assert "quantui merges adapters" in why_not_from_here(replace(best(), serve_adapter="lora"))


def test_the_best_from_here_passes_over_what_cannot_be_gone_to():
    expected = Expected("", "3090", "llama-3.1-8b", "balanced", 1, 4096, frozenset(), "", "")
    found = recommend(situation_of(expected))
    first, second = found.choices[:2]
    assert best_from_here(replace(found, choices=(replace(first, ready=False), second))) == second
    assert best_from_here(replace(found, choices=())) is None


def test_an_opened_profile_stands_for_answers_and_keeps_its_further_options():
    draft = Draft().with_option("model", "id", "owner/model").with_option("serve", "port", 9000)
    draft = draft.with_option("serve", "max_model_len", 4096)
    draft = draft.with_option("quantization", "method", "awq")
    found = answers_of(draft, Answers(use_case="max-speed"))
    assert (found.model, found.context, found.method) == ("owner/model", 4096, "awq")
    assert found.use_case == "max-speed"
    assert found.options == {("serve", "port"): 9000}


def test_arguments_set_by_hand_keep_the_split_over_stages():
    answers = Answers(model="a").with_option("serve", "extra_args", {"seed": 1})
    draft = draft_of(answers, replace(best(), pipeline_parallel=2), 4096)
    assert draft.serve.extra_args == {"pipeline-parallel-size": 2, "seed": 1}
