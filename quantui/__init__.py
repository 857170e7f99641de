"""quantui: from a model and a LoRA adapter to a quantized vLLM server that is proven to answer.

The Python calls are loaded when they are first asked for: importing this package costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.advice import fit, recommend
    from quantui.api import (
        free_cache,
        get_or_create_awq_model,
        get_or_create_merged_model,
        list_cache,
        merge_adapter,
        prepare_model_for_vllm,
        quantize_model,
        quantize_to_awq,
        verify_cache,
        was_trained_in_4bit,
    )
    from quantui.domain.errors import ExitCode, QuantuiError
    from quantui.domain.models import FourBitVerdict
    from quantui.domain.prepared_model import PreparedModel

__version__ = "0.1.0"

__all__ = [
    "ExitCode",
    "FourBitVerdict",
    "PreparedModel",
    "QuantuiError",
    "__version__",
    "fit",
    "free_cache",
    "get_or_create_awq_model",
    "get_or_create_merged_model",
    "list_cache",
    "merge_adapter",
    "prepare_model_for_vllm",
    "quantize_model",
    "quantize_to_awq",
    "recommend",
    "verify_cache",
    "was_trained_in_4bit",
]

_HOMES = {
    "ExitCode": "quantui.domain.errors",
    "FourBitVerdict": "quantui.domain.models",
    "PreparedModel": "quantui.domain.prepared_model",
    "QuantuiError": "quantui.domain.errors",
    "fit": "quantui.advice",
    "free_cache": "quantui.api",
    "get_or_create_awq_model": "quantui.api",
    "get_or_create_merged_model": "quantui.api",
    "list_cache": "quantui.api",
    "merge_adapter": "quantui.api",
    "prepare_model_for_vllm": "quantui.api",
    "quantize_model": "quantui.api",
    "quantize_to_awq": "quantui.api",
    "recommend": "quantui.advice",
    "verify_cache": "quantui.api",
    "was_trained_in_4bit": "quantui.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
