"""A fit says what is held where, how far off it may be, whether it works, and the least that would make it work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.fitting.calibration import Calibration
from quantui.domain.fitting.fit import Device, FitRequest, LoraSlots, fit
from quantui.domain.methods import method
from quantui.domain.weights.weight_census import weight_census

GIB = 1024**3
NONE = method("none")
LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
GEMMA = {
    **LLAMA_8B,
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "sliding_window": 4096,
}


def card(total=24.0, free=None, capability=(8, 9), name="GPU 0 (L4)"):
    return Device(
        False, int(total * GIB), int((total if free is None else free) * GIB), name, capability
    )


def ask(*devices, config=LLAMA_8B, chosen=NONE, calibration=None, suggest=False, **request):
    return fit(
        model_shape(config),
        weight_census(config),
        chosen,
        devices or (card(),),
        FitRequest(**request),
        calibration=calibration,
        suggest=suggest,
    )


def test_the_parts_of_the_budget_add_up():
    found = ask(context=8192)
    parts = (
        found.weights,
        found.kv_cache,
        found.transient,
        found.graphs,
        found.context,
        found.lora,
    )
    assert sum(part.bytes for part in parts) == pytest.approx(found.budget_bytes, abs=8)


def test_every_figure_has_a_band_a_formula_and_a_source():
    for figure in ask(context=8192).figures.values():
        assert figure.low <= figure.bytes <= figure.high
        assert figure.formula
        assert figure.source


def test_it_fits_when_even_the_pessimistic_end_holds_what_is_asked():
    found = ask(context=8192, users=2)
    assert found.verdict == "fits"
    assert found.kv_cache.low >= 2 * 8192 * found.kv_bytes_per_token


def test_it_does_not_fit_when_not_even_the_optimistic_end_does():
    found = ask(context=131072)
    assert found.verdict == "does not fit"
    assert found.kv_cache.high < 131072 * found.kv_bytes_per_token
    assert found.missing_bytes > 0


def test_it_is_tight_between_the_two():
    found = ask(context=8192)
    between = (found.kv_cache.low + found.kv_cache.high) // 2 // found.kv_bytes_per_token
    assert ask(context=between).verdict == "tight"


def test_the_longest_context_is_what_vllm_would_name():
    found = ask(context=131072)
    assert found.safe_context < found.max_context
    assert ask(context=found.max_context + 64).kv_cache.bytes < (
        (found.max_context + 64) * found.kv_bytes_per_token
    )
    assert ask(context=found.safe_context).verdict == "fits"
    assert ask(context=found.safe_context + 256).verdict != "fits"


def test_more_users_leave_each_a_shorter_context():
    one, four = ask(users=1).max_context, ask(users=4).max_context
    assert four == pytest.approx(one / 4, rel=0.01)


def test_users_are_those_of_the_asked_context():
    found = ask(context=4096)
    assert found.users == found.kv_cache_tokens // 4096


def test_a_context_beyond_the_models_is_unsupported_in_any_memory():
    found = ask(card(640), context=200_000)
    assert found.verdict == "unsupported"
    assert "131072" in found.reasons[0]


@pytest.mark.parametrize(
    ("config", "size", "why"),
    [
        (LLAMA_8B, 3, "32 attention heads"),
        ({**LLAMA_8B, "num_attention_heads": 36, "num_key_value_heads": 4}, 6, "4 K/V heads"),
    ],
)
def test_a_split_that_heads_forbid_is_unsupported(config, size, why):
    found = ask(*[card()] * size, config=config, tensor_parallel=size)
    assert found.verdict == "unsupported"
    assert why in found.reasons[0]


def test_the_smallest_card_of_a_group_decides():
    small, large = card(16, name="small"), card(80, name="large")
    assert ask(small, large, tensor_parallel=2).device == "small"
    assert (
        ask(large, small, tensor_parallel=2).kv_cache.bytes
        < ask(large, large, tensor_parallel=2).kv_cache.bytes
    )


def test_utilization_is_lowered_to_what_others_leave_free():
    found = ask(card(24, free=20))
    assert found.utilization == 0.81
    assert found.others.bytes == 4 * GIB


def test_a_utilization_that_is_not_free_is_refused_as_vllm_refuses_it():
    found = ask(card(24, free=20), context=1024, utilization=0.9)
    assert found.verdict == "does not fit"
    assert "are free" in found.reasons[0]
    assert "runs out later" not in found.reasons[0]


def test_a_vllm_that_does_not_check_free_memory_is_said_to_run_out_later():
    found = ask(card(24, free=20), context=1024, utilization=0.9, vllm_version="0.8.5")
    assert found.verdict == "does not fit"
    assert "this vLLM starts and runs out later" in found.reasons[0]


def test_a_utilization_that_only_the_cuda_context_may_spoil_is_tight():
    assert ask(card(24, free=22.3), context=1024, utilization=0.92).verdict == "tight"
    assert ask(card(24, free=22.6), context=1024, utilization=0.92).verdict == "fits"


def test_a_slice_of_a_card_is_a_card_of_its_size():
    part = card(19.5, name="GPU 0 (A100 MIG 3g.20gb)")
    assert ask(part).budget_bytes == pytest.approx(0.92 * 19.5 * GIB, abs=2)


def test_large_cards_get_vllms_larger_batches():
    h100, a100 = card(79.2, name="H100", capability=(9, 0)), card(79.2, name="A100-80GB")
    assert (ask(h100).max_num_seqs, ask(h100).max_num_batched_tokens) == (1024, 8192)
    assert (ask(a100).max_num_seqs, ask(a100).max_num_batched_tokens) == (256, 2048)
    assert ask(a100, vllm_version="0.8.5").max_num_seqs == 1024
    assert ask(card(178, capability=(10, 0))).max_num_batched_tokens == 16384


def test_v0_profiles_a_whole_prompt_and_so_room_shrinks_with_the_context():
    short = ask(context=4096, vllm_version="0.6.4")
    long = ask(context=32000, vllm_version="0.6.4")
    assert long.transient.bytes == pytest.approx(32000 * 110592, rel=0.01)
    assert long.kv_cache.bytes < short.kv_cache.bytes
    found = ask(vllm_version="0.6.4")
    assert ask(context=found.max_context, vllm_version="0.6.4").max_context >= found.max_context


def test_the_samplers_sort_is_what_older_versions_pay_for_many_sequences():
    logits = 1024 * 128256
    old, fused, now = (
        ask(max_num_seqs=1024, max_num_batched_tokens=2048, vllm_version=v).transient.bytes / logits
        for v in ("0.11", "0.19", "0.32")
    )
    assert old == pytest.approx(38.6, abs=0.3)
    assert fused == pytest.approx(14.2, abs=0.3)
    assert now == pytest.approx(2 + 4.125 + 0.3, abs=0.5)


def test_eager_takes_no_graphs():
    assert ask(eager=True).graphs.bytes == 0
    assert ask(chosen=method("bitsandbytes_8bit")).graphs.bytes == 0


def test_slots_for_adapters_take_room():
    found = ask(lora_slots=LoraSlots(max_loras=2, rank=64))
    assert found.lora.bytes > 0.3 * GIB
    assert found.kv_cache.bytes < ask().kv_cache.bytes - found.lora.bytes * 0.99


def test_what_earlier_loads_took_moves_the_figures_and_narrows_the_band():
    taught = ask(calibration=Calibration(GIB // 2, 5, "5 loads on this machine"))
    plain = ask()
    assert taught.kv_cache.bytes == plain.kv_cache.bytes - GIB // 2
    assert taught.kv_cache.high - taught.kv_cache.low < plain.kv_cache.high - plain.kv_cache.low
    assert "5 loads" in taught.context.source


def test_a_cache_of_a_given_size_is_taken_as_it_is_where_it_is_free():
    found = ask(kv_cache_bytes=2 * GIB, context=8192)
    assert found.kv_cache.bytes == 2 * GIB
    assert found.verdict == "fits"
    assert ask(kv_cache_bytes=20 * GIB, context=8192).verdict == "does not fit"


def test_on_the_cpu_workers_share_the_ram():
    ram = Device(True, 64 * GIB, 60 * GIB, "RAM")
    one, two = ask(ram), ask(ram, tensor_parallel=2)
    assert two.budget_bytes == one.budget_bytes // 2
    assert two.weights.bytes == pytest.approx(one.weights.bytes / 2, rel=0.01)
    assert one.utilization is None


def test_what_is_unknown_is_said_and_not_guessed():
    found = ask(Device(False, None, None, "the GPU"))
    assert (found.max_context, found.kv_cache_tokens) == (None, None)
    assert "not known" in found.reasons[-1]


def change(*devices, **request):
    found = ask(*devices, suggest=True, **request)
    assert found.verdict != "fits"
    return found.smallest_change


def works(*devices, **request):
    assert ask(*devices, **request).verdict == "fits"


def test_a_little_more_utilization_comes_first():
    found = ask(context=8192)
    context = found.kv_cache.low // found.kv_bytes_per_token + 1024
    assert change(context=context).option == "--utilization"
    works(context=context, utilization=float(change(context=context).value))


def test_fewer_sequences_come_before_a_shorter_context():
    device = card(24)
    asked = {"context": 24000, "max_num_seqs": 1024, "vllm_version": "0.10", "utilization": 0.95}
    assert change(device, **asked).option == "--max-num-seqs"
    few = int(change(device, **asked).value)
    works(device, **{**asked, "max_num_seqs": few})


def test_a_context_that_is_somewhat_shorter_comes_before_other_formats():
    asked = {"context": 62000, "utilization": 0.95, "max_num_seqs": 16}
    suggested = change(**asked)
    assert suggested.option == "--context"
    works(**{**asked, "context": int(suggested.value)})


def test_an_idle_gpu_comes_before_another_format():
    asked = {"context": 80000, "users": 3, "utilization": 0.95, "max_num_seqs": 16, "kv_dtype": "fp8"}  # fmt: skip
    assert change(card(), card(), **asked).option == "--tp"
    assert change(card(), **asked).option == "--method"


def test_a_card_that_is_too_small_by_far_needs_another_format_and_a_shorter_context():
    assert change(card(12), context=4096).option == "--method"
    assert change(card(2), context=4096) is None


def test_a_fit_that_needs_nothing_suggests_nothing():
    assert ask(context=4096, suggest=True).smallest_change is None


def test_sliding_windows_leave_room_for_far_longer_contexts():
    windows = ask(card(24), config=GEMMA)
    full = ask(card(24), config=GEMMA, vllm_version="0.8.5")
    assert windows.max_context > 1.5 * full.max_context


def test_a_model_without_a_census_is_counted_by_its_files_with_a_wide_band():
    shape = model_shape(LLAMA_8B)
    found = fit(shape, None, NONE, [card()], FitRequest(), stored_bytes=16 * GIB, suggest=False)
    assert found.weights.bytes == 16 * GIB
    assert found.weights.high > 1.2 * found.weights.bytes
    unknown = fit(shape, None, NONE, [card()], FitRequest(), suggest=False)
    assert unknown.verdict == "unsupported"


def test_an_encoder_needs_no_cache():
    shape = model_shape(LLAMA_8B)
    encoder = replace(
        shape, attention=(replace(shape.attention[0], kind="encoder"),), is_generative=False
    )
    found = fit(encoder, weight_census(LLAMA_8B), NONE, [card()], FitRequest(context=8192))
    assert found.verdict == "fits"
    assert found.kv_bytes_per_token == 0


def test_what_else_is_on_the_card_is_named_where_that_alone_is_in_the_way():
    """No option of vLLM frees memory that another process holds."""
    found = ask(card(24, free=4), context=4096, suggest=True)
    assert found.verdict == "does not fit"
    assert found.smallest_change.option == ""
    assert "stop what uses the GPU: 20.00 GiB" in found.smallest_change.text
    assert ask(card(24), context=4096).verdict == "fits"
