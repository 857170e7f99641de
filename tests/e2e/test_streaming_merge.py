"""Merging by streaming gives base + adapter, for every model and every kind of LoRA in the zoo.

The reference is transformers with the adapter *unmerged* by PEFT, in float32 whatever the base's dtype.
Adapters that PEFT reads otherwise than they were trained have a truth made without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures.zoo.catalogue import CASES, TIED, runs

if TYPE_CHECKING:
    from fixtures.merged_zoo import MergedZoo

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

FLOAT32 = [run for run, (_, dtype) in runs().items() if dtype == "f32"]
HALF = [run for run, (_, dtype) in runs().items() if dtype != "f32"]
THROUGH_PEFT = {"convolution", "v4-mixtral-fused", "v4-qwen3-fused"}
"""A convolution, and pairs of single experts for a base that stores its experts fused."""

PEFT_MERGES_WRONG = [
    "tied-head", "tied-embedding", "tied-head-and-embedding", "tied-embedding-gpt2",
    "tied-head-gpt2-bare", "tied-kept-lora", "tied-head-bare", "tied-several", "tied-resized-lora",
    "tied-dora-embedding", "tied-head-gemma", "embedding-scaled", "twice-head", "twice-embedding",
    "twice-kept-lora",
]  # fmt: skip


@pytest.mark.parametrize("run", FLOAT32)
def test_a_float32_merge_answers_as_base_and_unmerged_adapter(zoo: MergedZoo, run: str) -> None:
    assert zoo.run(run).result
    compared = zoo.compared[run]
    assert compared["adapter_changes"] > 0.05, "the case proves nothing"
    truth = compared["truth"]
    assert (compared["difference"] if truth is None else truth) < 1e-4


@pytest.mark.parametrize("run", HALF)
def test_a_16_bit_merge_loses_nothing_of_the_adapter(zoo: MergedZoo, run: str) -> None:
    assert zoo.run(run).result
    compared = zoo.compared[run]
    assert compared["kl_base"] > 5e-5, "the case proves nothing"
    assert compared["kl_merged"] <= 0.05 * compared["kl_base"]


@pytest.mark.parametrize("run", [*FLOAT32, *HALF])
def test_head_and_embedding_are_one_tensor_only_where_both_get_the_same(
    zoo: MergedZoo, run: str
) -> None:
    case, _ = runs()[run]
    assert zoo.compared[run]["tied"] is case.tied
    assert zoo.compared[run]["rows"] == case.tokens


@pytest.mark.parametrize("run", [*FLOAT32, *HALF])
def test_only_what_streaming_cannot_do_goes_through_peft(zoo: MergedZoo, run: str) -> None:
    result = zoo.run(run).result
    through_peft = run.rpartition("-")[0] in THROUGH_PEFT
    assert result["method"] == ("peft" if through_peft else "streamed")
    assert bool(result["why_peft"]) is through_peft


@pytest.mark.parametrize("case", PEFT_MERGES_WRONG)
def test_where_peft_merges_a_tie_wrong_the_result_agrees_with_the_unmerged_adapter(
    zoo: MergedZoo, case: str
) -> None:
    compared = zoo.compared[f"{case}-f32"]
    assert compared["peft_merged"] > 0.1
    assert compared["difference"] < 1e-4


def test_peft_merges_everything_else_as_it_answers_unmerged(zoo: MergedZoo) -> None:
    # Else one of them belongs into the list of those that PEFT merges wrong.
    rest = [name for name in CASES if name not in PEFT_MERGES_WRONG]
    assert [name for name in rest if zoo.compared[f"{name}-f32"]["peft_merged"] > 1e-4] == []
    assert len([name for name in TIED if name not in PEFT_MERGES_WRONG]) > 5


def test_rslora_pairs_of_experts_keep_the_scale_they_were_trained_with(zoo: MergedZoo) -> None:
    compared = zoo.compared["v4-rslora-f32"]
    # PEFT 0.21 fuses two pairs into one of twice the rank, whose root it divides by.
    assert compared["difference"] > 0.01
    assert compared["truth"] < 1e-4


def test_linear_layers_equal_pefts_default_merge_but_for_one_element_in_ten_million(
    zoo: MergedZoo,
) -> None:
    compared = zoo.compared["big"]
    assert compared["elements"] > 17_000_000
    assert compared["changed"] > 0.8 * compared["elements"]
    assert compared["differing"] <= compared["elements"] / 1e7
    assert compared["max_ulp"] <= 1
