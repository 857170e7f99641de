"""The Python calls: what a script needs to give a model, or a LoRA adapter, to ``vllm.LLM``.

They build the plan that the command line builds and run it with the same runner; merged and quantized models are
shared with it. They print nothing, work in any thread, and import neither torch nor vLLM: heavy work is done by child
processes, of which none is left when a call ends, however it ends.
"""

from __future__ import annotations

from quantui.api.caches import free_cache, list_cache, verify_cache
from quantui.api.merging import get_or_create_merged_model, merge_adapter, was_trained_in_4bit
from quantui.api.preparing import prepare_model_for_vllm
from quantui.api.quantizing import get_or_create_awq_model, quantize_model, quantize_to_awq
from quantui.domain.prepared_model import PreparedModel

__all__ = [
    "PreparedModel",
    "free_cache",
    "get_or_create_awq_model",
    "get_or_create_merged_model",
    "list_cache",
    "merge_adapter",
    "prepare_model_for_vllm",
    "quantize_model",
    "quantize_to_awq",
    "verify_cache",
    "was_trained_in_4bit",
]
