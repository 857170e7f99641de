"""The KV cache's dtype that a checkpoint asks for: what ``--kv-cache-dtype auto`` becomes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.quantization_config import quantization_fields
from quantui.domain.architecture.quantization_readers import read_quantization

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODELOPT = {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}
"""vllm/utils/torch_utils.py, MODELOPT_TO_VLLM_KV_CACHE_DTYPE_MAP, 0.32."""


def stored_kv_dtype(config: Mapping[str, Any]) -> str | None:
    """vLLM's name for it; None where the checkpoint says nothing, or something vLLM passes over.

    llm-compressor's scheme means FP8, wherever it stands (model_executor/layers/attention/attention.py, 0.32);
    ModelOpt's is looked for in the model's own config and not in its language model's
    (vllm/utils/torch_utils.py, get_kv_cache_quant_algo_string and resolve_kv_cache_dtype_string).
    """
    stored = read_quantization(config)
    if stored is None or stored.kv_cache is None:
        return None
    if stored.format == "compressed-tensors":
        return "fp8"
    if stored.format != "modelopt" or quantization_fields(config) is not config.get(
        "quantization_config"
    ):
        return None
    scheme = stored.kv_cache
    if scheme.name:
        return _MODELOPT.get(scheme.name.lower())
    if not scheme.floating:
        return None
    if scheme.bits == 8 and scheme.dynamic is False:
        return _MODELOPT["fp8"]
    return _MODELOPT["nvfp4"] if scheme.bits == 4 else None
