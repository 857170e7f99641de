"""One reading of quantization_config: what is served, what is shown and what the weights take agree."""

from __future__ import annotations

import pytest

from quantui.domain.architecture.checkpoint_format import classify_quantization
from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.architecture.quantization_readers import read_quantization
from quantui.domain.architecture.stored_kv_cache import stored_kv_dtype
from quantui.domain.checkpoint_facts import parameter_count
from quantui.domain.models import TensorInfo
from quantui.domain.weights.weight_census import weight_census

LLAMA = {
    "model_type": "llama",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 4096,
    "vocab_size": 32000,
}
Q_PROJ = "self_attn.q_proj"
FP8_KV = {"num_bits": 8, "type": "float", "dynamic": False}


def read(**stored):
    return read_quantization({"quantization_config": stored})


def classified(**stored):
    return classify_quantization({"quantization_config": stored})


def widths(part, **stored):
    """Bytes a weight and layers of the groups named ``part``; None: 16 bit."""
    groups = weight_census({**LLAMA, "quantization_config": stored})
    return {
        group.stored_width if group.quantized else None: group.layers
        for group in groups
        if group.name.endswith(part)
    }


def width(**stored):
    (found,) = widths("mlp.down_proj", **stored)
    return found


def mixed(**schemes):
    """compressed-tensors of several groups: name = (target, bits, kind)."""
    groups = {
        name: {"targets": [target], "weights": {"num_bits": bits, "type": kind, "group_size": 128}}
        for name, (target, bits, kind) in schemes.items()
    }
    return {"quant_method": "compressed-tensors", "config_groups": groups}


@pytest.mark.parametrize(
    "stored",
    [
        {"quant_method": "awq", "bits": 4, "group_size": 64},
        {"quant_method": "gptq", "bits": 8, "group_size": 32, "sym": True},
        {"quant_method": "auto-round", "bits": 4, "group_size": 128},
        {"quant_method": "mxfp8", "ignored_layers": ["lm_head"]},
        {"quant_method": "modelopt", "quant_algo": "MXFP8"},
        {"quant_method": "modelopt_fp4", "quant_algo": "NVFP4"},
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}},
        {"quant_method": "deepseek_v4_fp8", "weight_block_size": [128, 128]},
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0},
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
        {"quant_method": "gptq"},
    ],
)
def test_the_shape_and_the_catalogues_answer_are_of_the_same_bits(stored):
    shape, found = model_shape({**LLAMA, "quantization_config": stored}), classified(**stored)
    assert shape.quantization_bits == found.bits
    assert max(shape.group_size or 0, 0) == (found.group_size or 0)


def test_bits_that_awq_and_gptq_leave_out_are_unknown_and_count_as_4():
    # vLLM refuses such a config: 4 is a guess for the bytes, and nothing to show.
    assert read(quant_method="gptq").bits is None
    assert width(quant_method="gptq", group_size=128) == pytest.approx(0.515625)


@pytest.mark.parametrize("name", ["awq", "auto_awq", "awq_marlin"])
@pytest.mark.parametrize("zero_point", [True, False])
def test_awq_keeps_zero_points_by_any_name_and_whatever_it_says_of_them(name, zero_point):
    stored = {"quant_method": name, "bits": 4, "group_size": 128, "zero_point": zero_point}
    assert width(**stored) == pytest.approx(0.51953125)
    assert classified(**stored).symmetric is not zero_point


def test_of_two_names_for_a_field_the_one_vllm_prefers_counts():
    found = read(quant_method="awq", w_bit=4, bits=8, q_group_size=64, group_size=128)
    assert (found.bits, found.group_size) == (4, 64)


def test_gptqs_rules_leave_modules_out():
    stored = {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*\\.2\\.mlp\\..*": {}, "+:.*": {}}}
    assert widths("mlp.down_proj", **stored)[None] == (2,)


def test_autoround_leaves_out_what_it_gives_16_bit():
    layers = {"model.layers.1.mlp.down_proj": {"bits": 16}, ".*layers\\.3\\.mlp.*": {"bits": 16}}
    stored = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": layers}
    assert widths("mlp.down_proj", **stored)[None] == (1, 3)


def test_autoround_can_hold_awqs_layout_and_mx_floats():
    of_awq = read(quant_method="auto-round", bits=4, packing_format="auto_round:auto_awq")
    assert of_awq.outputs_packed
    assert of_awq.zero_points
    mx = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "mx_fp"}
    assert width(**mx) == pytest.approx(17 / 32)


def test_a_tensor_in_awqs_layout_has_its_rows_last():
    tensors = (
        TensorInfo("model.layers.0.mlp.down_proj.qweight", "I32", (4096, 128), 4096 * 128 * 4),
        TensorInfo("model.layers.0.mlp.down_proj.scales", "F16", (32, 1024), 32 * 1024 * 2),
    )
    stored = {"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:auto_awq"}
    groups = weight_census({**LLAMA, "quantization_config": stored}, tensors)
    assert [(g.rows, g.columns) for g in groups if g.name.endswith("down_proj")] == [(1024, 4096)]


def test_bitsandbytes_is_of_8_bit_where_vllm_reads_so():
    assert classified(quant_method="bitsandbytes", load_in_8bit=True).method == "bitsandbytes_8bit"
    assert classified(quant_method="bitsandbytes", _load_in_8bit=True).method == "bitsandbytes"
    assert width(quant_method="bitsandbytes", load_in_8bit=True) == pytest.approx(1 + 4 / 4096)


def test_bitsandbytes_names_its_type_only_where_it_is_stated():
    assert classified(quant_method="bitsandbytes").text == "bitsandbytes 4 bit"
    nf4 = classified(quant_method="bitsandbytes", bnb_4bit_quant_type="nf4")
    assert nf4.text == "bitsandbytes NF4 4 bit"


def test_blocks_need_not_be_square():
    stored = {"quant_method": "fp8", "weight_block_size": [64, 128]}
    assert width(**stored) == pytest.approx(1 + 4 / (64 * 128))
    assert classified(**stored).text == "FP8, a scale for each block of 64x128"


@pytest.mark.parametrize("block", [[128], [0, 128], ["128", "128"], 128, []])
def test_a_block_that_is_none_is_left_out(block):
    found = classified(quant_method="fp8", weight_block_size=block)
    assert found.method == "fp8_dynamic"


@pytest.mark.parametrize(
    "stored",
    [
        {"quant_method": "mxfp8"},
        {"quant_method": "modelopt", "quant_algo": "MXFP8"},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float", "group_size": 32}}},
        },
    ],
)
def test_mxfp8_has_a_byte_for_every_32_weights(stored):
    assert classified(**stored).method == "mxfp8"
    assert width(**stored) == pytest.approx(1 + 1 / 32)


def test_nvfp4_without_a_group_size_has_groups_of_16():
    weights = {"num_bits": 4, "type": "float"}
    stored = {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "config_groups": {"g": {"weights": weights}},
    }
    assert classified(**stored).group_size == 16
    assert width(**stored) == pytest.approx(0.5625)


def test_modelopts_nvfp4_is_weight_only_when_no_group_has_activations():
    groups = {"g": {"weights": {"num_bits": 4}, "input_activations": None}}
    stored = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    assert classified(**stored).activation_bits == 4
    assert classified(**stored, config_groups=groups).activation_bits == 16


def test_modelopts_config_without_a_method_is_named_by_its_algorithm():
    inner = {"quant_algo": "NVFP4", "exclude_modules": ["lm_head", "model.layers.0*"]}
    stored = {"producer": {"name": "modelopt"}, "quantization": inner}
    found = read(**stored)
    assert (found.method, found.bits) == ("modelopt_fp4", 4)
    assert widths("mlp.down_proj", **stored)[None] == (0,)


def test_quarks_two_steps_of_scales_are_of_the_narrower_weights():
    fp8, int4 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, {"dtype": "int4"}
    weights = [fp8, {**int4, "qscheme": "per_channel"}]
    whole = {"weight": weights, "input_tensors": {"dtype": "fp8_e4m3", "is_dynamic": True}}
    found = classified(quant_method="quark", global_quant_config=whole)
    assert (found.bits, found.group_size, found.activation_bits) == (4, None, 8)


def test_torchao_keeps_its_group_and_what_it_leaves_out_within_its_type():
    inner = {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}
    found = read(quant_method="torchao", quant_type={"default": inner})
    assert (found.bits, found.group_size, found.activation_bits) == (4, 64, 16)
    modules = {"_default": inner, "lm_head": None}
    chosen = {"_type": "ModuleFqnToConfig", "_data": {"module_fqn_to_config": modules}}
    found = read(quant_method="torchao", quant_type={"default": chosen})
    assert (found.bits, found.skipped) == (4, ("lm_head",))


def test_hqq_is_read_as_transformers_writes_it():
    weights = {"nbits": 4, "group_size": 64}
    found = read(quant_method="hqq", quant_config={"weight_quant_params": weights})
    assert (found.bits, found.group_size) == (4, 64)


def test_a_group_about_attention_is_about_the_kv_cache():
    stored = mixed(a=("LlamaAttention", 2, "int"), b=("Linear", 4, "int"))
    found = classified(**stored)
    assert found.bits == 4
    assert "mixed" not in found.text


def test_each_layer_of_mixed_schemes_takes_its_own():
    stored = mixed(a=("re:.*self_attn.*", 8, "float"), b=("Linear", 4, "int"))
    assert classified(**stored).bits == 4
    (attention,) = widths(Q_PROJ, **stored)
    assert attention > 1
    assert width(**stored) == pytest.approx(0.515625)


def test_layers_of_one_name_can_be_in_several_schemes():
    stored = mixed(a=("re:.*layers\\.[01]\\..*", 8, "int"), b=("re:.*layers\\.[23]\\..*", 4, "int"))
    found = widths("down_proj", **stored)
    assert [found[wide] for wide in sorted(found)] == [(2, 3), (0, 1)]


def test_the_kv_cache_is_read_by_the_names_the_rest_is_read_by():
    stored = {"quant_method": "compressed_tensors", "kv_cache_scheme": FP8_KV}
    assert stored_kv_dtype({"quantization_config": stored}) == "fp8"
    assert stored_kv_dtype({"text_config": {"quantization_config": stored}}) == "fp8"


def test_modelopts_kv_cache_counts_in_the_models_own_config_only():
    stored = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    assert stored_kv_dtype({"quantization_config": stored}) == "fp8_e4m3"
    assert stored_kv_dtype({"text_config": {"quantization_config": stored}}) is None


def test_packed_weights_are_counted_with_the_schemes_bits():
    packed = [TensorInfo("l.q_proj.weight_packed", "I32", (16, 4), 256)]
    stored = mixed(a=("Linear", 8, "int"))
    assert parameter_count(packed, {"quantization_config": stored}) == 256


@pytest.mark.parametrize(
    "damage",
    [
        {"quant_method": "gptq", "bits": 4, "dynamic": ["-:x"], "group_size": 1 << 80},
        {"quant_method": "auto-round", "extra_config": {"a": 4, "[": {"bits": 16}}},
        {"quant_method": "torchao", "quant_type": {"default": {"_data": {"module_fqn_to_config": 1}}}},
        {"quant_method": "quark", "global_quant_config": {"weight": [1], "input_tensors": "x"}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {}, "targets": 7}}},
        {"quant_method": "modelopt", "quantization": {"quant_algo": 8, "exclude_modules": {}}},
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": []}},
        {"quant_method": ["awq"]},
    ],
)  # fmt: skip
def test_damage_is_no_error(damage):
    assert read(**damage) is not None
    assert model_shape({**LLAMA, "quantization_config": damage}).layers == 4
