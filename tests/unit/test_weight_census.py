"""Counting a model's weights from its config, or from its headers."""

from __future__ import annotations

import pytest
from fixtures.published_models import MODELS, config_of

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.methods import method
from quantui.domain.models import TensorInfo
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank
from quantui.domain.weights.weight_census import parameters_by_role, weight_census

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def census(name=LLAMA, tensors=None, **changes):
    found = weight_census({**config_of(name), **changes}, tensors)
    assert found is not None
    return found


def named(groups, ending):
    return [group for group in groups if group.name.endswith(ending)]


def tensors_of(*described):
    return tuple(TensorInfo(name, dtype, shape, "s") for name, dtype, shape in described)


@pytest.mark.parametrize(
    ("name", "stated"),
    [(name, entry["parameters"]) for name, entry in MODELS.items() if entry["parameters"]],
)
def test_published_models_have_the_parameters_that_their_cards_state(name, stated):
    shape = model_shape(config_of(name))
    assert shape.parameters == stated
    assert shape.notes == ()


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 12.9),
        ("deepseek-ai/DeepSeek-V3", 37),
        ("Qwen/Qwen3-30B-A3B", 3.3),
        ("openai/gpt-oss-120b", 5.1),
        ("openai/gpt-oss-20b", 3.6),
    ],
)
def test_a_token_passes_through_its_experts_alone(name, billions):
    active = model_shape(config_of(name)).active_parameters
    # Cards round, and count the embedding table or not.
    assert active == pytest.approx(billions * 1e9, rel=0.12)


def test_a_tied_head_is_counted_once():
    tied = census("Qwen/Qwen2.5-0.5B")
    assert not [group for group in tied if group.role == "head"]
    assert parameters_by_role(tied)["embedding"] == 151936 * 896


def test_headers_and_config_give_the_same_groups_for_a_checkpoint_of_one_layer():
    config = {**config_of(LLAMA), "num_hidden_layers": 1}
    at = "model.layers.0."
    tensors = tensors_of(
        ("model.embed_tokens.weight", "BF16", (128256, 4096)),
        (at + "self_attn.q_proj.weight", "BF16", (4096, 4096)),
        (at + "self_attn.k_proj.weight", "BF16", (1024, 4096)),
        (at + "self_attn.v_proj.weight", "BF16", (1024, 4096)),
        (at + "self_attn.o_proj.weight", "BF16", (4096, 4096)),
        (at + "mlp.gate_proj.weight", "BF16", (14336, 4096)),
        (at + "mlp.up_proj.weight", "BF16", (14336, 4096)),
        (at + "mlp.down_proj.weight", "BF16", (4096, 14336)),
        (at + "input_layernorm.weight", "BF16", (4096,)),
        (at + "post_attention_layernorm.weight", "BF16", (4096,)),
        ("model.norm.weight", "BF16", (4096,)),
        ("lm_head.weight", "BF16", (128256, 4096)),
    )

    def seen(groups):
        return {(g.role, g.name, g.elements, g.split, g.stage, g.heads) for g in groups}

    assert seen(weight_census(config, tensors)) == seen(weight_census(config))


def test_layers_of_multi_token_prediction_are_not_loaded():
    tensors = tensors_of(
        ("model.layers.60.mlp.gate_proj.weight", "BF16", (8, 8)),
        ("model.layers.61.mlp.gate_proj.weight", "BF16", (8, 8)),
        ("mtp.layers.0.mlp.gate_proj.weight", "BF16", (8, 8)),
    )
    found = census("deepseek-ai/DeepSeek-V3", tensors)
    assert sum(group.elements for group in found) == 64


def test_buffers_of_old_checkpoints_are_not_counted():
    tensors = tensors_of(
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (64,)),
        ("transformer.h.0.attn.masked_bias", "F32", ()),
        ("transformer.h.0.attn.bias", "U8", (1, 1, 8, 8)),
    )
    assert sum(group.elements for group in census(tensors=tensors)) == 0


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}


def test_packed_weights_count_as_what_they_stand_for_and_take_what_is_stored():
    at = "model.layers.0.mlp.down_proj."
    tensors = tensors_of(
        (at + "qweight", "I32", (14336, 512)),
        (at + "qzeros", "I32", (112, 512)),
        (at + "scales", "F16", (112, 4096)),
    )
    (group,) = named(census(tensors=tensors, quantization_config=AWQ), "down_proj")
    assert (group.elements, group.rows, group.columns) == (4096 * 14336, 4096, 14336)
    assert group.stored_bytes == 14336 * 512 * 4 + 112 * 512 * 4 + 112 * 4096 * 2
    assert group.quantized


def test_flat_4_bit_weights_of_bitsandbytes_get_their_shape_from_the_config():
    tensors = tensors_of(
        ("model.layers.0.self_attn.k_proj.weight", "U8", (1024 * 4096 // 2, 1)),
        ("model.layers.0.self_attn.k_proj.weight.absmax", "U8", (1024 * 4096 // 64,)),
        ("model.layers.0.self_attn.k_proj.weight.quant_map", "F32", (16,)),
    )
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (group,) = named(census(tensors=tensors, quantization_config=stored), "k_proj")
    assert (group.rows, group.columns, group.heads) == (1024, 4096, 8)


def test_a_linear_layer_without_scales_in_a_quantized_checkpoint_stays_in_16_bit():
    tensors = tensors_of(("model.layers.0.mlp.down_proj.weight", "BF16", (4096, 14336)))
    (group,) = named(census(tensors=tensors, quantization_config=AWQ), "down_proj")
    assert not group.quantized


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ({"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["model.layers.3.mlp"]}, {3}),
        ({"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["layers.5"]}, {5}),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}},
                "ignore": ["lm_head", "re:.*layers\\.(7|9)\\..*"],
            },
            {7, 9},
        ),
        ({"quant_method": "fp8", "ignored_layers": ["model.layers.1.mlp.down_proj"]}, {1}),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["model.layers.2.*"]}, {2}),
    ],
)
def test_what_the_config_leaves_out_of_quantization_stays_in_16_bit(stored, kept):
    groups = named(census(quantization_config=stored), "mlp.down_proj")
    whole = {index for group in groups if not group.quantized for index in group.layers}
    assert whole == kept
    assert sum(len(group.layers) for group in groups) == 32


def test_a_pattern_that_could_take_forever_is_not_tried():
    stored = {"quant_method": "compressed-tensors", "ignore": ["re:(a+)+$", "re:(.*)*x"]}
    assert all(g.quantized for g in named(census(quantization_config=stored), "down_proj"))


@pytest.mark.parametrize(
    ("stored", "width"),
    [
        (AWQ, 0.51953125),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, 0.515625),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False}, 0.51953125),
        ({"quant_method": "bitsandbytes", "bnb_4bit_use_double_quant": True}, 0.515869140625),
        ({"quant_method": "bitsandbytes"}, 0.5625),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1.000244140625),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5625),
    ],
)
def test_stored_formats_take_their_bytes_a_weight(stored, width):
    (group,) = named(census(quantization_config=stored), "mlp.down_proj")
    assert group.stored_width == pytest.approx(width, rel=1e-6)


def test_mxfp4_of_gpt_oss_is_in_its_experts_alone():
    stored = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens"]}
    found = census("openai/gpt-oss-20b", quantization_config=stored)
    assert {group.role for group in found if group.quantized} == {"expert"}


def test_a_type_nobody_knows_is_counted_as_llama_and_says_so():
    shape = model_shape({**config_of(LLAMA), "model_type": "hitherto_unknown"})
    assert shape.parameters == MODELS[LLAMA]["parameters"]
    assert shape.notes == ("hitherto_unknown is not known: weights are counted as Llama's",)


def test_without_sizes_there_is_no_census():
    assert weight_census({"model_type": "llama", "num_hidden_layers": None}) is None
    assert weight_census({}) is None


def test_the_census_of_a_large_model_from_headers_has_few_groups():
    names = [
        (f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight", "BF16", (8, 8))
        for layer in range(3, 40)
        for expert in range(64)
        for part in ("gate", "up", "down")
    ]
    found = census("deepseek-ai/DeepSeek-V3", tensors_of(*names))
    assert len([group for group in found if group.elements]) == 3
    assert {group.count for group in found if group.elements} == {37 * 64}


def test_fused_queries_keys_and_values_are_taken_apart():
    name = "microsoft/phi-4"
    tensors = tensors_of(
        ("model.layers.0.self_attn.qkv_proj.weight", "BF16", (5120 + 2 * 1280, 5120)),
        ("model.layers.0.mlp.gate_up_proj.weight", "BF16", (2 * 17920, 5120)),
    )
    found = census(name, tensors)
    assert [(g.rows, g.split, g.heads) for g in named(found, "qkv_proj")] == [
        (5120, "column", 0),
        (1280, "kv_heads", 10),
        (1280, "kv_heads", 10),
    ]
    assert len(named(found, "gate_up_proj")) == 1


def test_the_groups_of_a_mamba_mixer_are_taken_apart():
    name = "tiiuae/Falcon-H1-0.5B-Instruct"
    rows = 2 * 1536 + 24 + 2 * 128
    tensors = tensors_of(("model.layers.0.mamba.in_proj.weight", "BF16", (rows, 1024)))
    found = named(census(name, tensors), "mamba.in_proj")
    assert [(g.rows, g.split) for g in found] == [(rows - 256, "column"), (256, "kv_heads")]


def test_a_fused_tensor_that_does_not_add_up_stays_whole():
    tensors = tensors_of(("model.layers.0.self_attn.qkv_proj.weight", "BF16", (99, 4096)))
    (group,) = named(census(tensors=tensors), "qkv_proj")
    assert (group.rows, group.split) == (99, "column")


@pytest.mark.parametrize(
    ("version", "width"), [((0, 8, 5), 0.5 + 1 / 64 + 4 / 16384), ((0, 9, 2), 0.5625)]
)
def test_bitsandbytes_scales_stay_quantized_before_they_were_unfolded(
    version: tuple[int, ...], width: float
) -> None:
    census = weight_census(config_of("meta-llama/Llama-3.1-8B-Instruct"))
    assert census is not None
    linear = sum(group.elements for group in census if group.quantized)
    whole = weight_bytes_per_rank(census, method("none"), version=version).per_rank
    counted = weight_bytes_per_rank(census, method("bitsandbytes"), version=version).per_rank
    assert whole - counted == pytest.approx(linear * (2 - width), abs=200)
