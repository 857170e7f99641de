"""A quantized checkpoint can ask for the dtype of its KV cache."""

from __future__ import annotations

import pytest

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.architecture.stored_kv_cache import stored_kv_dtype
from quantui.domain.fitting.fit import Device, FitRequest, fit
from quantui.domain.methods import method
from quantui.domain.weights.weight_census import weight_census

FP8 = {"num_bits": 8, "type": "float", "dynamic": False}


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (None, None),
        ({"quant_method": "compressed-tensors"}, None),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": FP8}, "fp8"),
        ({"quant_method": "modelopt", "kv_cache_scheme": FP8}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "FP8"}}, "fp8_e4m3"),
        ({"quant_method": "modelopt_fp4", "kv_cache_quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "INT3"}, None),
        ({"quant_method": "awq", "kv_cache_scheme": FP8}, None),
        ({"quant_method": 7, "kv_cache_scheme": FP8}, None),
    ],
)
def test_what_the_config_says(stored, dtype):
    assert stored_kv_dtype({"quantization_config": stored}) == dtype


def test_it_is_what_auto_means_in_a_vllm_that_follows_it():
    config = {
        "model_type": "llama",
        "hidden_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": FP8},
    }
    shape, census = model_shape(config), weight_census(config)

    def bytes_per_token(**request):
        card = Device(False, 24 << 30, 24 << 30, "card", (8, 9))
        asked = FitRequest(**request)
        return fit(shape, census, method("none"), [card], asked, suggest=False).kv_bytes_per_token

    assert bytes_per_token() == bytes_per_token(kv_dtype="bfloat16") // 2
    assert bytes_per_token(vllm_version="0.13") == bytes_per_token(kv_dtype="bfloat16")
