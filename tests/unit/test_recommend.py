"""How a recommendation behaves: what it counts with, what it tells, and what it does with what is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.public_machines import GIB, cards, gpu, machine, mig
from fixtures.recommendation_cases import adapter, situation_of, variant
from fixtures.situation import Expected

from quantui.domain.choosing.layouts import layouts, usable_slots
from quantui.domain.choosing.use_cases import CRITERIA, use_case
from quantui.domain.errors import QuantuiError
from quantui.domain.performance.speed import OwnRun
from quantui.domain.recommend import explanation, recommend, refusal_explanation, use_cases


def situation(
    machine="3090", model="llama-3.1-8b", use="balanced", users=1, context=4096, **changes
):
    expected = Expected("", machine, model, use, users, context, frozenset(), "", "")
    return replace(situation_of(expected), **changes)


def choice(found, method):
    return next(one for one in found.choices if one.method == method)


def refusal(found, method):
    return next(one for one in found.refused if one.method == method)


# Use cases


def test_every_use_case_weighs_known_criteria_that_add_up_to_one():
    for use in use_cases().values():
        assert set(use.weights) <= set(CRITERIA)
        assert sum(use.weights.values()) == pytest.approx(1.0)
        assert use.reason and use.source


def test_an_unknown_use_case_is_refused_with_the_nearest_name():
    with pytest.raises(QuantuiError, match="no use case") as caught:
        recommend(situation(use_case="many-user"))
    assert "many-users" in caught.value.fix


def test_a_use_case_may_be_written_with_spaces():
    assert use_case("Long context").name == "long-context"


def test_what_is_not_asked_for_is_the_use_cases_within_what_the_model_was_made_for():
    found = recommend(situation(use="long-context", context=None, users=None))
    assert (found.context, found.users) == (65536, 1)
    short = recommend(
        situation(model="qwen2.5-7b", use="long-context", machine="h100", context=None)
    )
    assert short.context == 32768


# Devices


def test_mig_slices_stand_alone():
    one = mig("a100-80", "3g.40gb", 40192)
    report = machine(replace(one, mig=(one.mig[0], replace(one.mig[0], uuid="MIG-1"))))
    slots, _ = usable_slots(report, None)
    assert [slot.gpu.total_bytes for slot in slots] == [40192 * 1024**2] * 2
    assert all(len(layout.slots) == 1 for same in layouts(slots) for layout in same)


def test_equal_cards_are_taken_together_before_unequal_ones():
    slots, _ = usable_slots(cards("3060 + 2x 3090"), None)
    pairs = [layout for same in layouts(slots) for layout in same if len(layout.slots) == 2]
    assert {tuple(slot.gpu.index for slot in layout.slots) for layout in pairs} == {(1, 2)}


@pytest.mark.parametrize(
    ("value", "indices"), [("1", [1]), ("GPU-0", [0]), ("", []), ("1,9,0", [1]), (None, [0, 1])]
)
def test_cuda_visible_devices_limits_what_is_taken(value, indices):
    report = replace(cards("2x 3090"), cuda_visible_devices=value)
    slots, _ = usable_slots(report, None)
    assert sorted(slot.gpu.index for slot in slots) == indices


def test_only_the_named_gpus_are_taken():
    found = recommend(situation("3090 + 3060", gpus=(1,)))
    assert found.choices[0].gpus == (1,)


def test_no_gpu_by_name_is_the_cpu():
    found = recommend(situation(gpus=()))
    assert found.on_cpu
    assert "as asked" in " ".join(found.notes)


def test_a_card_that_vllm_cannot_use_is_told():
    found = recommend(situation("v100"))
    assert any("compute capability is 7.0" in note for note in found.notes)


def test_an_unknown_card_gets_choices_without_a_speed():
    unknown = replace(gpu("3090"), name="Some Card", compute_capability=None)
    found = recommend(situation(hardware=machine(unknown)))
    assert found.choices
    assert all(one.speed.tokens_per_s_total is None for one in found.choices)


# What is told


def test_reasons_carry_the_numbers_of_the_fit():
    one = choice(recommend(situation()), "awq")
    assert f"{one.fit.weights.bytes / GIB:.2f} GiB instead of 14.96 GiB" in one.reasons[0]
    assert str(one.fit.kv_cache_tokens) in one.reasons[1]


def test_every_figure_of_a_choice_is_explained_with_a_formula_or_a_source():
    found = recommend(situation())
    for one in found.choices:
        rows = explanation(one, use=found.use_case)
        subjects = {row.subject for row in rows}
        assert {"weights", "KV cache", "loss of quality", "speed, each user", "score"} <= subjects
        assert all(row.formula or row.source for row in rows)
        assert one.score == pytest.approx(sum(one.parts.values()) - sum(one.taken.values()))
        assert all(any(why in row.formula for row in rows) for why in one.taken)


def test_a_refusal_for_memory_is_explained_with_the_figures():
    found = recommend(situation("3060"))
    rows = refusal_explanation(refusal(found, "none"))
    assert {"refused", "weights", "budget"} <= {row.subject for row in rows}


def test_users_that_do_not_fit_wait_and_that_is_said():
    one = choice(recommend(situation("h100", use="many-users", users=500, context=4096)), "none")
    assert one.verdict == "tight"
    assert any("of 500 requests" in text for text in one.cautions)


def test_a_context_beyond_the_models_is_refused_for_every_method():
    found = recommend(situation(model="qwen2.5-7b", context=100_000))
    assert not found.choices
    assert refusal(found, "none").code == "model"


def test_the_nearest_miss_says_what_is_missing_and_what_would_fit():
    found = recommend(situation("t4", model="llama-3.1-70b"))
    assert found.nearest is not None
    assert found.nearest.missing_bytes > 20 * GIB
    assert any("billion parameters" in text for text in found.nearest.smaller)


def test_what_can_be_served_right_away_is_told_when_the_first_choice_has_to_be_made():
    found = recommend(situation("3090", model="qwen2.5-14b"))
    assert found.choices[0].way == "make"
    assert found.at_once is not None
    assert found.at_once.method in " ".join(found.notes)


def test_a_checkpoint_that_is_made_here_is_as_ready_as_any():
    found = recommend(situation("3090", model="qwen2.5-14b"))
    assert found.choices[0].ready
    assert found.choices[0].ready
    assert choice(found, "awq").needs == "quantui makes it with llm-compressor"


def test_what_this_machine_has_no_memory_to_make_is_not_ready_and_says_how_much_is_lacking():
    small = machine(gpu("3090"), ram_gib=8)
    one = choice(recommend(situation(hardware=small, model="qwen2.5-14b")), "awq")
    assert not one.ready
    assert "larger machine" in one.needs
    assert "GiB" in one.needs


def test_a_full_disk_is_cautioned_of():
    found = recommend(situation(hardware=machine(gpu("3090"), disk_gib=1)))
    assert any("of disk" in text for text in choice(found, "awq").cautions)


# Costs


def test_making_a_checkpoint_has_a_published_time_scaled_with_the_parameters():
    step = choice(recommend(situation()), "awq").cost.steps[0]
    assert step.kind == "make"
    assert step.seconds == pytest.approx(30 * 60, rel=0.01)
    assert "docs.vllm.ai" in step.source


def test_what_is_not_here_yet_has_to_be_downloaded():
    found = recommend(situation(download_bytes=16 * 10**9))
    assert choice(found, "none").cost.download_bytes == 16 * 10**9


def test_in_flight_formats_need_nothing_made():
    one = choice(recommend(situation("4090")), "fp8_per_tensor")
    assert one.ready
    assert one.cost.seconds == 0
    assert one.cost.disk_bytes == 0


# Variants


def test_a_published_checkpoint_stands_for_one_that_would_have_to_be_made():
    one = choice(recommend(situation(variants=(variant("awq", "llama-3.1-8b"),))), "awq")
    assert one.way == "variant"
    assert one.ready
    assert one.variant is not None
    assert one.cost.download_bytes > 5 * 10**9


def test_one_on_this_machine_costs_nothing():
    one = choice(recommend(situation(variants=(variant("awq:cached", "llama-3.1-8b"),))), "awq")
    assert one.cost.steps == ()


def test_a_gptq_checkpoint_of_eight_bit_is_counted_as_such():
    eight = replace(variant("gptq", "llama-3.1-8b"), bits=8)
    found = recommend(situation(variants=(eight,)))
    assert choice(found, "gptq").fit.weights.bytes > 1.5 * choice(found, "awq").fit.weights.bytes


def test_a_gated_checkpoint_is_cautioned_of():
    gated = replace(variant("awq", "llama-3.1-8b"), gated="manual")
    one = choice(recommend(situation(variants=(gated,))), "awq")
    assert any("gated" in text for text in one.cautions)


def test_a_variant_of_unknown_format_is_told_and_not_taken():
    odd = replace(variant("awq", "llama-3.1-8b"), method="")
    found = recommend(situation(variants=(odd,)))
    assert all(one.variant is None for one in found.choices)
    assert any("not known" in note for note in found.notes)


def test_the_16_bit_model_of_a_quantized_checkpoint_is_named():
    found = recommend(situation(model="qwen2.5-7b-awq", base_ref="Qwen/Qwen2.5-7B-Instruct"))
    assert "Qwen/Qwen2.5-7B-Instruct" in refusal(found, "gptq").reasons[0]


# Adapters


@pytest.mark.parametrize(
    ("adapters", "change", "mode"),
    [
        (("r16",), False, "merge"),
        (("r16",), True, "lora"),
        (("r16", "r8"), False, "lora"),
        (("dora",), True, "merge"),
        (("r1024",), True, "merge"),
    ],
)
def test_one_adapter_is_merged_and_several_or_changing_ones_are_kept_beside(adapters, change, mode):
    found = recommend(
        situation(
            adapters=tuple(map(adapter, adapters)), adapters_change=change, use="serve-finetune"
        )
    )
    assert found.adapter_advice is not None
    assert found.adapter_advice.mode == mode
    assert choice(found, "none").serve_adapter == mode


def test_whole_layers_in_an_adapter_cannot_be_served_beside():
    one = replace(adapter("r16"), modules_to_save=("embed_tokens", "lm_head"))
    found = recommend(situation(adapters=(one, one)))
    assert found.adapter_advice.mode == "merge"
    assert not found.adapter_advice.can_serve_lora


def test_an_adapter_beside_the_base_costs_memory_and_speed():
    merged = choice(recommend(situation(adapters=(adapter("r64"),))), "none")
    beside = choice(recommend(situation(adapters=(adapter("r64"),), adapters_change=True)), "none")
    assert beside.fit.lora.bytes > merged.fit.lora.bytes == 0
    assert beside.speed.tokens_per_s_total < merged.speed.tokens_per_s_total
    assert "2310.18547" in beside.speed.source


def test_merging_is_a_step_with_disk_and_time():
    one = choice(recommend(situation(adapters=(adapter("r16"),))), "none")
    assert [step.kind for step in one.cost.steps] == ["merge"]
    assert one.cost.disk_bytes > 15 * 10**9
    assert one.cost.seconds > 0


def test_a_checkpoint_of_the_base_is_served_with_the_adapter_beside_it():
    found = recommend(
        situation(adapters=(adapter("r16"),), variants=(variant("awq", "llama-3.1-8b"),))
    )
    assert choice(found, "awq").serve_adapter == "lora"
    assert choice(found, "none").serve_adapter == "merge"


# What was measured here


def test_the_users_own_run_outranks_the_formula():
    plain = recommend(situation(use="max-speed"))
    first = plain.choices[0].method
    slow = OwnRun(first, "", "", users=1, tokens_per_s=5.0, context=4096)
    found = recommend(situation(use="max-speed", own_runs=(slow,)))
    measured = choice(found, first)
    assert measured.speed.basis == "own run"
    assert measured.speed.tokens_per_s_per_user == pytest.approx(5.0, rel=0.05)
    assert found.choices[0].method != first


def test_weights_that_cannot_be_counted_are_taken_from_the_files_size():
    found = recommend(situation(census=None, stored_bytes=16 * 10**9))
    assert choice(found, "none").fit.weights.bytes == pytest.approx(16 * 10**9, rel=0.05)
    assert refusal(found, "awq").reasons


def test_a_loss_that_one_source_alone_has_measured_counts_a_little_worse():
    found = recommend(situation(use="max-speed"))
    ours, others = choice(found, "autoround"), choice(found, "awq")
    assert "one source only" in ours.quality.note
    assert ours.quality.loss_percent < others.quality.loss_percent < ours.quality.loss_percent + 0.4
    assert ours.parts["quality"] < others.parts["quality"]


def test_the_checkpoints_own_format_is_refused_for_what_refuses_the_checkpoint():
    found = recommend(situation("b200", model="llama-3.1-8b-int8-w8a8"))
    assert not found.choices
    assert refusal(found, "int8_w8a8").reasons == refusal(found, "none").reasons
    assert "10.0" in refusal(found, "int8_w8a8").reasons[0]


def test_what_is_named_instead_works_here():
    found = recommend(situation("a100-80"))
    works = {one.method for one in found.choices}
    assert all(set(one.instead) <= works for one in found.refused)


def test_equal_cards_that_are_left_could_serve_copies():
    notes = " ".join(recommend(situation("4x h100")).notes)
    assert "takes 1 of 4 equal GPUs" in notes
    assert "--data-parallel-size 4" in notes
    assert "copies" not in " ".join(recommend(situation("h100")).notes)


# What is compared


def test_for_the_highest_speed_all_are_compared_on_as_many_cards():
    """16 bit gains most from more cards; that it takes them must not make it faster than 4 bit on fewer."""
    found = recommend(situation("8x h100", use="max-speed"))
    none, four_bit = choice(found, "none"), choice(found, "awq")
    assert none.tensor_parallel == four_bit.tensor_parallel > 1
    assert four_bit.speed.tokens_per_s_total > none.speed.tokens_per_s_total
    assert found.choices[0].speed.tokens_per_s_total > none.speed.tokens_per_s_total


def test_eight_bit_on_two_cards_comes_before_16_bit_on_four():
    """FP8 is recommended for most scenarios where the card has the units (GPUStack's vLLM study)."""
    found = recommend(situation("8x h100", "llama-3.1-70b", users=4, context=8192))
    first, plain = found.choices[0], choice(found, "none")
    assert first.method.startswith("fp8")
    assert len(first.gpus) < len(plain.gpus)


def test_fp4_made_while_loading_on_a_card_without_its_units_comes_after_what_is_established():
    found = recommend(situation("4090", "qwen2.5-32b", use="easy-start"))
    assert choice(found, "mxfp4").rank > choice(found, "awq").rank
    assert "without units for it" in " ".join(choice(found, "mxfp4").taken)


@pytest.mark.parametrize(
    ("version", "package"), [("0.32", "install vllm-bnb-plugin"), ("0.20", "install bitsandbytes")]
)
def test_what_bitsandbytes_needs_beside_vllm_depends_on_its_version(version, package):
    found = recommend(situation(vllm_version=version))
    steps = choice(found, "bitsandbytes").cost.steps
    assert [step.text for step in steps if step.kind == "install"] == [f"{package} beside vLLM"]


@pytest.mark.parametrize(
    ("version", "served"), [("0.9.1", True), ("0.19.1", True), ("0.20", False)]
)
def test_a_v100_is_taken_by_a_vllm_that_still_had_volta(version, served):
    found = recommend(situation("v100", vllm_version=version))
    assert (found.choices[0].gpus == (0,)) is served
    assert found.on_cpu is not served
    if served:
        assert {one.method for one in found.choices} <= {"none", "gptq", "bitsandbytes"}


def test_a_checkpoint_that_its_own_fields_rule_out_is_not_recommended():
    """`quantui fit` refuses it, and the two may not differ."""
    fields = {"quant_method": "gptq", "bits": 3, "group_size": 128, "sym": True}
    plain = situation()
    config = {"model_type": "llama", "quantization_config": fields}
    stored = replace(
        plain,
        shape=replace(plain.shape, quantization="gptq", quantization_bits=3, group_size=128),
        stored_method="gptq",
        config=config,
    )
    found = recommend(stored)
    assert found.choices == ()
    assert "GPTQ in 3 bit" in refusal(found, "none").reasons[0]
    assert any("16-bit model" in note for note in found.notes)


def test_fp4_is_not_to_be_made_for_a_card_without_units_for_it():
    """Where no groups of 128 are possible, what vLLM makes while loading comes before a format for later cards."""
    found = recommend(situation("3060", "deepseek-v2-lite", users=4, context=8192))
    assert choice(found, "nvfp4").rank > choice(found, "bitsandbytes").rank
