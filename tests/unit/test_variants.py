"""Whether a repository is a quantized copy of a model, in what method, and which copy comes first."""

from __future__ import annotations

import pytest

from quantui.domain.choosing.variants import (
    Variant,
    by_name,
    card_bases,
    classify,
    for_another_runtime,
    named_after,
    ranked,
    same_architecture,
    same_shape,
)
from quantui.domain.methods import methods


def variant(ref, **changes):
    values = {
        "ref": ref,
        "publisher": ref.partition("/")[0],
        "method": "awq",
        "quant_method": "awq",
        "bits": 4,
        "source": "hub",
        "base_ref": "owner/base",
        "evidence": (),
    }
    return Variant(**{**values, **changes})


@pytest.mark.parametrize(
    ("name", "method", "bits"),
    [
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "awq", 4),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "gptq", 8),
        ("RedHatAI/Llama-3.1-8B-Instruct-FP8-dynamic", "fp8_dynamic", 8),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "w4a16", 4),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "int8_w8a8", 8),
        ("nvidia/Llama-3.1-8B-Instruct-NVFP4", "nvfp4", 4),
        ("nvidia/Llama-3.1-8B-Instruct-FP4", "nvfp4", 4),
        ("unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit", "bitsandbytes", 4),
        ("x/model-bnb-8bit", "bitsandbytes_8bit", 8),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF", "gguf", None),
        ("Intel/Qwen3-8B-int4-AutoRound", "autoround", 4),
        ("x/Model-HQQ-4bit", "hqq", 4),
    ],
)
def test_a_name_tells_its_method(name, method, bits):
    found = by_name(name)
    assert found is not None
    assert (found.method, found.bits) == (method, bits)
    assert method in methods()


@pytest.mark.parametrize(
    "name",
    ["x/Llama-3-8B", "x/aurora", "x/phi-3-mini-4k", "x/gemma-3-27b-it-qat-q4_0-unquantized"],
)
def test_an_ordinary_name_tells_none(name):
    assert by_name(name) is None


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("x/Qwen3-4B-MLX-4bit", ()),
        ("mlx-community/Qwen3-4B-4bit", ("mlx",)),
        ("x/Qwen3-4B-exl2-4.0bpw", ()),
        ("x/Qwen3-4B-int4-ov", ()),
        ("x/Qwen3-4B-ONNX", ()),
    ],
)
def test_what_is_for_another_program_is_known(name, tags):
    assert for_another_runtime(name, tags)


def test_a_model_for_vllm_is_not_taken_for_another_programs():
    assert not for_another_runtime("Qwen/Qwen2.5-7B-Instruct-AWQ", ("safetensors", "4-bit", "awq"))
    assert not for_another_runtime("mlxperiments/provoked-AWQ", ("transformers",))


def test_a_config_outranks_the_name():
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    found = classify("x/model-AWQ", config)
    assert found is not None
    assert (found[0].method, found[1]) == ("gptq", "quantization_config")


def test_a_name_completes_what_the_hub_keeps_of_a_config():
    config = {"quantization_config": {"quant_method": "compressed-tensors"}}
    found = classify("x/model-quantized.w8a8", config)
    assert found is not None
    assert found[0].method == "int8_w8a8"
    assert found[0].quant_method == "compressed-tensors"


def test_a_name_does_not_contradict_a_config():
    config = {"quantization_config": {"quant_method": "vptq"}}
    found = classify("x/model-AWQ", config)
    assert found is not None
    assert (found[0].method, found[0].quant_method) == ("", "vptq")


def test_without_config_and_name_a_tag_tells():
    assert classify("x/model", {}, ("safetensors", "awq", "base_model:y/z-GPTQ")) is not None
    assert classify("x/model", {}, ("safetensors", "base_model:y/z-GPTQ")) is None


@pytest.mark.parametrize(
    "ref", ["o/Base-7B-AWQ", "O/base-7b-GPTQ-Int4", "o/Base-7B-FP8-dynamic", "o/Base-7B.w4a16"]
)
def test_a_copy_is_named_after_its_base(ref):
    assert named_after(ref, "owner/Base-7B")


@pytest.mark.parametrize("ref", ["o/Base-7B-Instruct-AWQ", "o/Base-70B-AWQ", "o/Base-7B", "o/x"])
def test_another_model_is_not(ref):
    assert not named_after(ref, "owner/Base-7B")


def test_shapes_are_compared_by_what_both_tell():
    one = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2}
    assert same_shape(one, {**one, "torch_dtype": "float16"})
    assert same_shape(one, {"text_config": one})
    assert not same_shape(one, {**one, "num_hidden_layers": 3})
    assert not same_shape(one, {"hidden_size": 64})


def test_unknown_architectures_contradict_nothing():
    known = {"architectures": ["LlamaForCausalLM"]}
    assert same_architecture(known, {})
    assert same_architecture(known, {"architectures": "x"})
    assert not same_architecture(known, {"architectures": ["Eagle3"]})


def test_this_machine_comes_first_then_the_models_publisher_then_the_most_downloaded():
    found = [
        variant("a/few", downloads=1),
        variant("a/many", downloads=9),
        variant("owner/own", downloads=0),
        variant("b/cached", source="hub-cache"),
    ]
    order = [each.ref for each in ranked(found, publisher="Owner", limit=9)]
    assert order == ["b/cached", "owner/own", "a/many", "a/few"]


def test_a_popular_format_does_not_hide_the_others():
    found = [variant(f"a/{i}", downloads=100 - i) for i in range(9)]
    found.append(variant("a/rare", method="w4a16", downloads=1))
    chosen = ranked(found, publisher="", limit=4, most_of_a_method=3)
    assert [each.ref for each in chosen] == ["a/0", "a/1", "a/2", "a/rare"]


@pytest.mark.parametrize(
    ("head", "bases"),
    [
        ("base_model: a/b", ("a/b",)),
        ('base_model: "a/b"', ("a/b",)),
        ("base_model:\n- a/b\n- c/d\ntags:\n- x/y", ("a/b", "c/d")),
        ("base_model:\n  - a/b", ("a/b",)),
        ("base_model: [a/b, c/d]", ("a/b", "c/d")),
        ("base_model: /home/me/model/x", ()),
        ("license: mit", ()),
    ],
)
def test_a_card_names_its_bases(head, bases):
    assert card_bases(f"---\n{head}\n---\n# base_model: not/this\n") == bases


def test_a_card_without_a_head_names_none():
    assert card_bases("# Model\nbase_model: a/b\n") == ()
