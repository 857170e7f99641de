"""What a config and tensor headers say about a checkpoint."""

from __future__ import annotations

import pytest

from quantui.domain import checkpoint_facts as facts
from quantui.domain.architecture.quantization_config import quantization_method
from quantui.domain.models import TensorInfo
from quantui.domain.weight_choice import choose_model_weights, content_files, wanted_files


def tensor(name, dtype, *shape):
    return TensorInfo(name, dtype, shape, "model.safetensors")


def test_tensor_bytes_follow_dtype_and_shape():
    assert tensor("a", "BF16", 3, 5).nbytes == 30
    assert tensor("a", "F4", 3, 5).nbytes == 8
    assert tensor("a", "F32").nbytes == 4
    assert tensor("a", "F32", 0, 7).nbytes == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 32768}, 32768),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({}, None),
        # DeepSeek V3: yarn states the scaled length (vLLM 0.32 does not scale it again).
        (
            {
                "max_position_embeddings": 163840,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 40,
                    "original_max_position_embeddings": 4096,
                },
            },
            163840,
        ),
        # Gemma 3's config leaves the length to its class.
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, 131072),
        # Llama 3.1 states the scaled length.
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        # Phi-3 128k: vLLM serves the original length unless told otherwise.
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope"},
            },
            4096,
        ),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2}}, 8192),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
        # transformers 5: one set of parameters a layer type.
        (
            {
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 4},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            16384,
        ),
        ({"max_position_embeddings": "many"}, None),
    ],
)
def test_context_length_is_the_one_vllm_derives(config, expected):
    assert facts.context_length(config) == expected


def test_the_tokenizer_can_lower_the_context():
    config = {"max_position_embeddings": 32768}
    assert facts.context_length(config, {"model_max_length": 4096}) == 4096
    assert facts.context_length(config, {"model_max_length": 1e30}) == 32768


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        (
            {"text_config": {"quantization_config": {"quant_method": "compressed_tensors"}}},
            "compressed-tensors",
        ),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ],
)
def test_stored_quantization_is_named_as_vllm_names_it(config, expected):
    assert quantization_method(config) == expected


def test_packed_weights_count_as_the_parameters_they_stand_for():
    bnb = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    packed = [
        tensor("l.q_proj.weight", "U8", 128, 1),
        tensor("l.q_proj.weight.absmax", "F32", 4),
        tensor("l.q_proj.weight.quant_state.bitsandbytes__nf4", "U8", 90),
        tensor("norm.weight", "BF16", 16),
    ]
    assert facts.parameter_count(packed, bnb) == 256 + 16
    gptq = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    packed = [
        tensor("l.q_proj.qweight", "I32", 2, 16),
        tensor("l.q_proj.qzeros", "I32", 1, 2),
        tensor("l.q_proj.scales", "F16", 1, 16),
        tensor("l.q_proj.g_idx", "I32", 16),
    ]
    assert facts.parameter_count(packed, gptq) == 256


def test_the_weights_that_are_loaded_are_the_ones_chosen():
    assert choose_model_weights(["model.safetensors", "pytorch_model.bin"]).names == (
        "model.safetensors",
    )
    assert choose_model_weights(["a.safetensors", "model.safetensors.index.json"]).index
    mistral = ["consolidated.safetensors", "model-1.safetensors"]
    assert choose_model_weights(mistral).names == ("model-1.safetensors",)
    assert choose_model_weights(["pytorch_model.bin", "optimizer.pt"]).names == (
        "pytorch_model.bin",
    )
    assert choose_model_weights(["m.gguf"]).kind == "gguf"
    assert choose_model_weights(["adapter_model.safetensors", "adapter_config.json"]).kind == (
        "adapter"
    )
    assert choose_model_weights(["README.md"]).kind == "none"


def test_other_copies_of_the_weights_are_not_downloaded():
    names = [
        "model.safetensors",
        "pytorch_model.bin",
        "original/consolidated.00.pth",
        "onnx/model.onnx",
        "model.gguf",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "modeling_own.py",
        "README.md",
        "LICENSE",
        "figure.png",
        ".gitattributes",
    ]
    assert set(wanted_files(names, ["model.safetensors"], adapter=False)) == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "modeling_own.py",
        "README.md",
        "LICENSE",
    }
    assert "README.md" not in content_files(names, ["model.safetensors"])
    assert "pytorch_model.bin" not in content_files(names, ["model.safetensors"])


def test_chat_template_and_tokenizer_are_found_wherever_they_may_be():
    assert facts.has_chat_template(["chat_template.jinja"], None)
    assert facts.has_chat_template([], {"chat_template": "x"})
    assert not facts.has_chat_template([], {"chat_template": ""})
    assert facts.has_tokenizer(["vocab.json", "merges.txt"])
    assert not facts.has_tokenizer(["merges.txt", "tokenizer_config.json"])


def test_fingerprints_of_folders_and_of_the_hub_never_meet():
    pairs = [("config.json", "a")]
    assert facts.content_fingerprint("sha256", pairs) != facts.content_fingerprint("hub", pairs)
    two = [("a", "1"), ("b", "2")]
    assert facts.content_fingerprint("hub", two) == facts.content_fingerprint("hub", two[::-1])
