"""Which adapters are offered first for a model, by names alone."""

from __future__ import annotations

import pytest

from quantui.domain.adapter_bases import why_not_for


@pytest.mark.parametrize(
    ("base", "model"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("qwen/qwen3-8b", "Qwen/Qwen3-8B"),
        ("unsloth/Qwen3-8B-bnb-4bit", "Qwen/Qwen3-8B"),
        ("unsloth/Qwen3-8B-bnb-4bit", "unsloth/Qwen3-8B"),
        ("/workspace/models/Qwen3-8B/", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B", "/data/Qwen3-8B"),
    ],
)
def test_an_adapter_whose_base_has_the_models_name_is_for_it(base, model):
    assert why_not_for(base, model) == ""


@pytest.mark.parametrize(
    ("base", "model"),
    [("Qwen/Qwen3-4B", "Qwen/Qwen3-8B"), ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B")],
)
def test_another_name_is_the_reason(base, model):
    assert why_not_for(base, model) == f"trained on {base}"


def test_an_adapter_that_names_no_base_says_so():
    assert why_not_for(None, "Qwen/Qwen3-8B") == "names no base"


def test_a_model_may_be_known_by_several_names():
    assert why_not_for("owner/base", None, "/data/x", "owner/base") == ""
