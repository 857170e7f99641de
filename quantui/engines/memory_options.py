"""The options of a draft that change what vLLM takes of memory: serve's own, and further arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.choosing.adapter_advice import lora_rank
from quantui.domain.errors import QuantuiError
from quantui.domain.fitting.fit_facts import LoraSlots
from quantui.domain.quantities import tokens
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.draft import Draft
    from quantui.domain.models import AdapterSpec

_SHORT = {"tp": "tensor_parallel_size", "pp": "pipeline_parallel_size"}


@dataclass(frozen=True)
class MemoryOptions:
    """What counts. None: vLLM's default."""

    tensor_parallel: int
    pipeline_parallel: int
    context: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    utilization: float | None
    kv_cache_bytes: int | None
    kv_dtype: str
    block_size: int | None
    dtype: str
    eager: bool
    lora_slots: LoraSlots | None

    @property
    def world(self) -> int:
        """GPUs that are taken."""
        return self.tensor_parallel * self.pipeline_parallel


def memory_options(draft: Draft, beside: AdapterSpec | None = None) -> MemoryOptions:
    """The options of ``draft``; an argument among serve.extra_args outranks the option of its own.

    ``beside``: the adapter that is served unmerged, or would be when no device can merge it. A value that is none
    is left to the check against the engine's parser.
    """
    serve = draft.serve
    further = {_name(name): value for name, value in serve.extra_args.items()}
    given = serve.kv_cache_gib
    kv_bytes = None if given is None else int(given * GIB)
    return MemoryOptions(
        tensor_parallel=_whole(further, "tensor_parallel_size") or serve.tensor_parallel,
        pipeline_parallel=_whole(further, "pipeline_parallel_size") or 1,
        context=_whole(further, "max_model_len") or serve.max_model_len,
        max_num_seqs=_whole(further, "max_num_seqs") or serve.max_num_seqs,
        max_num_batched_tokens=_whole(further, "max_num_batched_tokens"),
        utilization=_part(further, "gpu_memory_utilization") or serve.gpu_memory_utilization,
        kv_cache_bytes=_whole(further, "kv_cache_memory_bytes") or kv_bytes,
        kv_dtype=_text(further, "kv_cache_dtype") or "auto",
        block_size=_whole(further, "block_size"),
        dtype=_text(further, "dtype") or serve.dtype,
        eager=_flag(further, "enforce_eager", default=serve.enforce_eager),
        lora_slots=_slots(further, beside),
    )


def max_lora_rank(adapter: AdapterSpec) -> int:
    """The smallest rank vLLM has kernels for that holds ``adapter``; its own above them all."""
    return lora_rank((adapter,)) or adapter.rank or 16


def _slots(further: Mapping[str, Any], beside: AdapterSpec | None) -> LoraSlots | None:
    if not _flag(further, "enable_lora", default=beside is not None):
        return None
    rank = _whole(further, "max_lora_rank")
    return LoraSlots(
        max_loras=_whole(further, "max_loras") or 1,
        rank=rank or (16 if beside is None else max_lora_rank(beside)),
    )


def _name(option: str) -> str:
    plain = option.lstrip("-").replace("-", "_")
    return _SHORT.get(plain, plain)


def _whole(further: Mapping[str, Any], name: str) -> int | None:
    value = further.get(name)
    if isinstance(value, bool) or value is None:
        return None
    try:
        return value if isinstance(value, int) and value > 0 else tokens(name, str(value))
    except QuantuiError:
        return None


def _part(further: Mapping[str, Any], name: str) -> float | None:
    value = further.get(name)
    try:
        part = float(value)  # type: ignore[arg-type]  # what is no number is caught
    except (TypeError, ValueError):
        return None
    return part if 0 < part <= 1 else None


def _text(further: Mapping[str, Any], name: str) -> str:
    value = further.get(name)
    return value if isinstance(value, str) else ""


def _flag(further: Mapping[str, Any], name: str, *, default: bool) -> bool:
    if further.get(f"no_{name}") in (True, "", None) and f"no_{name}" in further:
        return False
    value = further.get(name, default)
    return value.lower() in ("", "true", "1") if isinstance(value, str) else bool(value)
