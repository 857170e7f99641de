"""A checkpoint's config.json tells the catalogue's method, bits and group size of what it is stored in."""

from __future__ import annotations

import pytest

from quantui.domain.architecture.checkpoint_format import classify_quantization
from quantui.domain.methods import methods


def compressed(weights, activations=None, **more):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **more}


def weights(bits, kind="int", strategy="group", size=128):
    return {
        "num_bits": bits,
        "type": kind,
        "strategy": strategy,
        "group_size": size,
        "symmetric": True,
    }


def activations(bits, kind="int", *, dynamic=True):
    return {"num_bits": bits, "type": kind, "dynamic": dynamic, "strategy": "token"}


# Configs as their producers write them; the schemes of compressed-tensors are its presets.
STORED = {
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
        ("awq", 4, 128),
    ),
    "gptq": (
        {
            "quant_method": "gptq",
            "bits": 8,
            "group_size": -1,
            "desc_act": True,
            "sym": True,
        },
        ("gptq", 8, None),
    ),
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        ("bitsandbytes", 4, None),
    ),
    "bitsandbytes 8": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        ("bitsandbytes_8bit", 8, None),
    ),
    "deepseek": (
        {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
        ("fp8_block", 8, None),
    ),
    "fp8 static": (
        {"quant_method": "fp8", "activation_scheme": "static"},
        ("fp8_static", 8, None),
    ),
    "fp8 dynamic": (
        {"quant_method": "fp8", "activation_scheme": "dynamic"},
        ("fp8_dynamic", 8, None),
    ),
    "gpt-oss": ({"quant_method": "mxfp4", "modules_to_not_convert": []}, ("mxfp4", 4, 32)),
    "modelopt fp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
        ("nvfp4", 4, 16),
    ),
    "modelopt, nested": (
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}},
        ("modelopt", 8, None),
    ),
    "autoround": (
        {
            "quant_method": "auto-round",
            "bits": 4,
            "group_size": 128,
            "packing_format": "auto_round:auto_gptq",
        },
        ("autoround", 4, 128),
    ),
    "torchao": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
        ("torchao", 4, None),
    ),
    "quark": (
        {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}},
        ("quark", 8, None),
    ),
    "w4a16": (compressed(weights(4), format="pack-quantized"), ("w4a16", 4, 128)),
    "w8a16": (compressed(weights(8)), ("w8a16", 8, 128)),
    "w8a8": (
        compressed(weights(8, strategy="channel", size=None), activations(8)),
        ("int8_w8a8", 8, None),
    ),
    "w4a8": (compressed(weights(4), activations(8)), ("w4a8", 4, 128)),
    "w4afp8": (compressed(weights(4), activations(8, "float")), ("w4a8", 4, 128)),
    "ct fp8": (
        compressed(weights(8, "float", "tensor", None), activations(8, "float", dynamic=False)),
        ("fp8_static", 8, None),
    ),
    "ct fp8 dynamic": (
        compressed(weights(8, "float", "channel", None), activations(8, "float")),
        ("fp8_dynamic", 8, None),
    ),
    "ct fp8 block": (
        compressed(weights(8, "float", "block", None), activations(8, "float")),
        ("fp8_block", 8, None),
    ),
    "ct nvfp4": (
        compressed(
            weights(4, "float", "tensor_group", 16),
            activations(4, "float"),
            format="nvfp4-pack-quantized",
        ),
        ("nvfp4", 4, 16),
    ),
    "ct mxfp4": (compressed(weights(4, "float", "group", 32)), ("mxfp4", 4, 32)),
    "ct mxfp8": (
        compressed(weights(8, "float", "group", 32), activations(8, "float")),
        ("mxfp8", 8, 32),
    ),
    "rotated": (
        compressed(weights(4), transform_config={"config_groups": {"R1": {}}}),
        ("rotations_w4a16", 4, 128),
    ),
    "rotated w8a8": (
        compressed(
            weights(8, strategy="channel", size=None),
            activations(8),
            transform_config={"config_groups": {"R1": {}}},
        ),
        ("rotations_w8a8", 8, None),
    ),
    "retired": ({"quant_method": "aqlm", "in_group_size": 8}, ("aqlm", None, None)),
    "foreign": ({"quant_method": "vptq"}, ("", None, None)),
}


@pytest.mark.parametrize("name", STORED)
def test_each_format_has_its_method(name):
    stored, expected = STORED[name]
    found = classify_quantization({"quantization_config": stored})
    assert found is not None
    assert found[:3] == expected


@pytest.mark.parametrize("name", STORED)
def test_every_method_is_one_of_the_catalogues(name):
    method = STORED[name][1][0]
    assert not method or method in methods()


def test_a_16_bit_checkpoint_is_in_no_method():
    assert classify_quantization({"torch_dtype": "bfloat16"}) is None


def test_the_config_of_a_multimodal_model_is_looked_into():
    stored = {"quant_method": "awq", "bits": 4, "group_size": 64}
    found = classify_quantization({"text_config": {"quantization_config": stored}})
    assert found is not None
    assert found[:3] == ("awq", 4, 64)


def test_of_mixed_schemes_the_one_with_the_fewest_bits_counts():
    stored = {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "a": {"weights": weights(8)},
            "b": {"weights": weights(4)},
        },
    }
    found = classify_quantization({"quantization_config": stored})
    assert found is not None
    assert found.method == "w4a16"
    assert found.text.endswith("mixed schemes")


@pytest.mark.parametrize(
    "damage",
    [
        {"quant_method": "gptq", "bits": "4", "group_size": [], "sym": 1},
        {"quant_method": "awq", "bits": True, "group_size": 10**30},
        {"quant_method": "compressed-tensors", "config_groups": ["x"]},
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {}}}},
        {"quant_method": "modelopt", "quantization": 4},
        {"quant_method": "torchao", "quant_type": {}},
        {"quant_method": "quark", "global_quant_config": {"weight": []}},
        {"quant_method": "x" * 10_000},
        {"quant_method": None},
    ],
)
def test_a_config_of_wrong_types_is_unknown_and_no_error(damage):
    found = classify_quantization({"quantization_config": damage})
    assert found is not None
    assert found.bits is None
    assert len(found.text) <= 160


def test_what_vllm_calls_the_format_is_kept():
    found = classify_quantization({"quantization_config": {"quant_method": "AWQ", "w_bit": 4}})
    assert found is not None
    assert (found.quant_method, found.bits) == ("awq", 4)
