"""The KV cache's dtype that a checkpoint asks for: what ``--kv-cache-dtype auto`` becomes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MODELOPT = {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}
"""vllm/utils/torch_utils.py, MODELOPT_TO_VLLM_KV_CACHE_DTYPE_MAP, 0.32."""


def stored_kv_dtype(config: Mapping[str, Any]) -> str | None:
    """vLLM's name for it; None where the checkpoint says nothing, or something vLLM passes over.

    llm-compressor writes ``kv_cache_scheme``, which means FP8; ModelOpt that or ``kv_cache_quant_algo``
    (vllm/utils/torch_utils.py, get_kv_cache_quant_algo_string; model_executor/layers/attention/attention.py).
    """
    stored = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(stored, Mapping):
        return None
    method = stored.get("quant_method")
    if not isinstance(method, str):
        return None
    if method.startswith("modelopt"):
        return _modelopt(stored)
    return "fp8" if method == "compressed-tensors" and stored.get("kv_cache_scheme") else None


def _modelopt(stored: Mapping[str, Any]) -> str | None:
    inner = stored.get("quantization")
    places = (inner if isinstance(inner, Mapping) else stored, stored)
    names = ("kv_cache_scheme", "kv_cache_quant_algo")
    found = next((place[name] for name in names for place in places if place.get(name)), None)
    if isinstance(found, Mapping):
        floating = found.get("type") == "float"
        if floating and found.get("num_bits") == 8 and found.get("dynamic") is False:
            return _MODELOPT["fp8"]
        return _MODELOPT["nvfp4"] if floating and found.get("num_bits") == 4 else None
    return _MODELOPT.get(found.lower()) if isinstance(found, str) else None
