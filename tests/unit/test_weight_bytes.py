"""Bytes of weights on a GPU: as stored, as a method makes them, and by tensor and pipeline parallel rank."""

from __future__ import annotations

import pytest
from fixtures.published_models import config_of

from quantui.domain.methods import method
from quantui.domain.weights.layer_partition import layers_of_stage
from quantui.domain.weights.lora_slots import lora_bytes
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank
from quantui.domain.weights.weight_census import weight_census

GIB = 2**30
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LLAMA_70B = "meta-llama/Llama-3.3-70B-Instruct"
FP8_DYNAMIC = {
    "quant_method": "compressed-tensors",
    "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
    "ignore": ["lm_head"],
}
INT8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"a": {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}},
    "ignore": ["lm_head"],
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
BNB = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_use_double_quant": True,
    "llm_int8_skip_modules": ["lm_head"],
}


def loaded(name, chosen="none", quantization=None, dtype="auto", version=(0, 32), **ranks):
    stored = {"quantization_config": quantization} if quantization else {}
    census = weight_census({**config_of(name), **stored})
    assert census is not None
    return weight_bytes_per_rank(census, method(chosen), dtype=dtype, version=version, **ranks)


# "Model loading took" or "the model weights take" of public logs: GiB, the version of vLLM, and where the log is.
MEASURED = [
    (
        LLAMA,
        None,
        1,
        14.99,
        (0, 11, 0),
        "https://github.com/llm-d-incubation/llm-d-planner/blob/main/docs/empirical-vllm-memory-results.md",
    ),
    (LLAMA, None, 1, 14.9888, (0, 6, 4), "https://github.com/vllm-project/vllm/issues/10517"),
    (
        "meta-llama/Llama-3.2-1B",
        None,
        1,
        2.3185,
        (0, 6),
        "https://github.com/oumi-ai/oumi/pull/1223",
    ),
    (
        "meta-llama/Llama-3.2-3B",
        None,
        1,
        6.016,
        (0, 8, 2),
        "https://github.com/unslothai/notebooks/blob/main/nb/Meta_Synthetic_Data_Llama3_2_(3B).ipynb",
    ),
    (
        "meta-llama/Llama-3.2-1B",
        BNB,
        1,
        0.9786,
        (0, 6),
        "https://github.com/oumi-ai/oumi/pull/1223",
    ),
    (
        "Qwen/Qwen2.5-0.5B",
        None,
        1,
        0.928,
        (0, 11, 0),
        "https://github.com/huggingface/cookbook/blob/main/notebooks/en/grpo_vllm_online_training.ipynb",
    ),
    (
        "Qwen/Qwen2.5-32B",
        None,
        2,
        30.7098,
        (0, 7),
        "https://github.com/vllm-project/vllm/issues/15815",
    ),
    (
        "Qwen/Qwen2.5-14B",
        None,
        2,
        13.9476,
        (0, 7, 2),
        "https://github.com/vllm-project/vllm/issues/13061",
    ),
    (
        "Qwen/Qwen2.5-7B",
        AWQ,
        1,
        5.2032,
        (0, 7, 3),
        "https://github.com/vllm-project/vllm/issues/13882",
    ),
    (
        LLAMA_70B,
        FP8_DYNAMIC,
        1,
        67.72,
        (0, 11, 0),
        "https://github.com/llm-d-incubation/llm-d-planner/blob/main/docs/empirical-vllm-memory-results.md",
    ),
    (
        LLAMA_70B,
        FP8_DYNAMIC,
        2,
        33.88,
        (0, 11, 0),
        "https://github.com/llm-d-incubation/llm-d-planner/blob/main/docs/empirical-vllm-memory-results.md",
    ),
    (LLAMA_70B, INT8, 1, 67.7229, (0, 7, 0), "https://github.com/vllm-project/vllm/pull/12569"),
    (
        "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
        None,
        1,
        44.76,
        (0, 11, 0),
        "https://github.com/llm-d-incubation/llm-d-planner/blob/main/docs/empirical-vllm-memory-results.md",
    ),
]


@pytest.mark.parametrize(("name", "stored", "ranks", "gib", "version", "where"), MEASURED)
def test_loading_takes_what_public_logs_say(name, stored, ranks, gib, version, where):
    found = loaded(name, quantization=stored, version=version, tensor_parallel=ranks)
    assert found.per_rank / GIB == pytest.approx(gib, rel=0.015), where


def test_the_rotary_table_is_in_what_loading_took():
    # 131072 positions of 128 elements in 16 bit; the head and the table are padded to 64 rows already.
    assert loaded(LLAMA).per_rank == 2 * 8030261248 + 131072 * 128 * 2


def test_a_method_in_flight_quantizes_linear_layers_and_nothing_else():
    plain, made = loaded(LLAMA), loaded(LLAMA, "fp8_per_tensor")
    linear = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
    assert plain.by_role["linear"] == 2 * linear
    assert made.by_role["linear"] == pytest.approx(linear, rel=1e-3)
    assert {role: made.by_role[role] for role in ("embedding", "head", "norm")} == {
        role: plain.by_role[role] for role in ("embedding", "head", "norm")
    }


def test_a_stored_quantization_is_served_as_it_is():
    assert loaded(LLAMA, "bitsandbytes", AWQ).per_rank == loaded(LLAMA, "none", AWQ).per_rank


def test_float32_doubles_what_is_not_quantized():
    assert loaded(LLAMA, dtype="float32").per_rank == 2 * loaded(LLAMA).per_rank


def test_the_vocabulary_is_padded_to_64_rows():
    name = "openai-community/gpt2"
    assert loaded(name).by_role["embedding"] == 2 * 768 * (50304 + 1024)


def test_each_rank_holds_its_part_and_all_norms():
    one, four = loaded(LLAMA), loaded(LLAMA, tensor_parallel=4)
    norms = 2 * 65 * 4096
    table = 131072 * 128 * 2
    assert four.replicated == norms + table
    assert four.per_rank == (one.per_rank - norms - table) // 4 + norms + table
    assert four.total == 4 * four.per_rank


def test_ranks_beyond_the_kv_heads_repeat_them():
    eight = loaded(LLAMA, tensor_parallel=8).by_role["linear"]
    sixteen = loaded(LLAMA, tensor_parallel=16).by_role["linear"]
    heads = 2 * 32 * 2 * 128 * 4096
    assert sixteen == (eight - heads) // 2 + heads


def test_latent_attention_repeats_its_low_rank_matrices_on_every_rank():
    low = 2 * 61 * 7168 * (1536 + 576)
    found = loaded("deepseek-ai/DeepSeek-V3", tensor_parallel=8)
    assert found.replicated > low
    assert found.by_role["expert"] == 2 * 58 * 256 * 3 * 2048 * 7168 // 8


def test_a_quantized_latent_model_keeps_a_16_bit_copy_of_what_it_multiplies_with():
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    name = "deepseek-ai/DeepSeek-V3"
    found = loaded(name, quantization=fp8).by_role["linear"]
    census = weight_census({**config_of(name), "quantization_config": fp8})
    assert census is not None
    linear = sum(g.elements * (g.stored_width or 2) for g in census if g.role == "linear")
    assert found == pytest.approx(linear + 2 * 61 * 128 * 256 * 512, rel=1e-6)


def test_gpt_oss_is_rounded_up_in_its_experts():
    plain = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    found = loaded("openai/gpt-oss-20b", quantization=plain).by_role["expert"]
    stored = 24 * 32 * 3 * 2880 * 2880 * 17 / 32
    assert found == pytest.approx(stored * 3072 / 2880 * 2944 / 2880, rel=1e-6)


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (32, 2, [16, 16]),
        (61, 2, [31, 30]),
        (80, 3, [27, 27, 26]),
        (61, 4, [15, 15, 16, 15]),
        (62, 4, [15, 16, 16, 15]),
        (3, 8, [0, 0, 0, 0, 1, 1, 1, 0]),
    ],
)
def test_layers_are_dealt_to_stages_as_vllm_deals_them(layers, stages, expected):
    ranges = [layers_of_stage(layers, stage, stages) for stage in range(stages)]
    assert [len(held) for held in ranges] == expected
    assert [index for held in ranges for index in held] == list(range(layers))


def test_the_fullest_pipeline_stage_counts():
    found = loaded(LLAMA, pipeline_parallel=2)
    assert found.by_role["linear"] == loaded(LLAMA).by_role["linear"] // 2
    # The last stage has the head and the final norm.
    assert found.by_role["head"] == 2 * 128256 * 4096
    assert "embedding" not in found.by_role
    assert found.total == pytest.approx(loaded(LLAMA).total, rel=0.01)


def test_a_tied_table_is_on_the_first_stage_and_on_the_last():
    name = "meta-llama/Llama-3.2-3B"
    table = 2 * 128256 * 3072
    assert loaded(name, pipeline_parallel=2).by_role["embedding"] == table
    spread = loaded(name, pipeline_parallel=2).total - loaded(name).total
    assert spread == table + 131072 * 128 * 2


def test_every_figure_says_how_it_was_made():
    found = loaded(LLAMA, "awq", tensor_parallel=2, pipeline_parallel=2)
    assert "x 0.5" in found.formula
    assert "2 GPUs" in found.formula
    assert "config.json" in found.source
    assert 0 < found.error_fraction < 0.1


def test_lora_slots_of_a_3b_are_those_of_its_seven_matrices_table_and_head():
    census = weight_census(config_of("meta-llama/Llama-3.2-3B"))
    assert census is not None
    pairs = [(3072, 3072), (3072, 1024), (3072, 1024), (3072, 3072), (3072, 8192), (3072, 8192)]
    layer = sum(a + b for a, b in [*pairs, (8192, 3072)])
    linear = 28 * layer * 64 * 2
    alone = lora_bytes(census, max_rank=64)
    assert alone == linear
    with_table = lora_bytes(census, max_rank=64, model_type="llama")
    # The head is tied: its adapter has buffers of its own.
    assert with_table == linear + 2 * (128256 + 3072) * 64 * 2
    assert lora_bytes(census, max_rank=64, max_loras=4) == 4 * alone


def test_lora_slots_are_only_half_divided_by_tensor_parallel():
    census = weight_census(config_of(LLAMA))
    assert census is not None
    one, two = lora_bytes(census), lora_bytes(census, tensor_parallel=2)
    assert one / 2 < two < one


def test_a_model_of_unknown_form_has_a_wide_band():
    census = weight_census({**config_of(LLAMA), "model_type": "hitherto_unknown"})
    assert census is not None
    assert weight_bytes_per_rank(census, method("none")).error_fraction == 0.15
    assert loaded(LLAMA).error_fraction < 0.02


def test_double_quantized_scales_are_unfolded_since_vllm_0_9_2():
    name = "meta-llama/Llama-3.2-1B"
    census = weight_census({**config_of(name), "quantization_config": BNB})
    assert census is not None
    linear = sum(group.elements for group in census if group.role == "linear")

    def taken(version):
        return weight_bytes_per_rank(census, method("none"), version=version).by_role["linear"]

    assert taken((0, 9, 1)) == pytest.approx(0.515869140625 * linear, rel=1e-6)
    assert taken((0, 9, 2)) == taken((0, 32)) == pytest.approx(0.5625 * linear, rel=1e-6)


def test_in_flight_bitsandbytes_takes_as_much_as_a_stored_checkpoint():
    plain, stored = loaded(LLAMA, "bitsandbytes"), loaded(LLAMA, "none", BNB)
    assert plain.by_role["linear"] == pytest.approx(stored.by_role["linear"], rel=1e-3)
