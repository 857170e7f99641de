"""The weights and LoRA slots of one rank as a fit uses them: counted once for each way to serve, then remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.weights.lora_slots import lora_bytes
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.fit_facts import FitRequest
    from quantui.domain.fitting.vllm_versions import VllmBehaviour
    from quantui.domain.methods import Method
    from quantui.domain.weights.weight_groups import WeightGroup

_REMEMBERED = 512
_memory: dict[tuple[object, ...], tuple[object, LoadedWeights]] = {}


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Bytes of one rank, -1: unknown; ``low_by`` and ``high_by`` are how far off they may be."""

    bytes: int
    low_by: float
    high_by: float
    formula: str
    source: str
    lora: int = 0
    lora_formula: str = "none"


def loaded_weights(
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    request: FitRequest,
    stored_bytes: int | None,
    rules: VllmBehaviour,
) -> LoadedWeights:
    """What the rank with the most holds.

    Without a census the size of the files stands in, divided over the ranks, and its band is wide. The answer is
    remembered by the census object itself: hashing a census costs more than a whole fit.
    """
    slots = request.lora_slots
    key = (
        id(census),
        method.name,
        request.tensor_parallel,
        request.pipeline_parallel,
        request.dtype,
        stored_bytes,
        slots,
        rules.version,
    )
    known = _memory.get(key)
    if known is not None and known[0] is census:
        return known[1]
    result = _count(shape, census, method, request, stored_bytes, rules)
    if len(_memory) >= _REMEMBERED:
        _memory.clear()
    _memory[key] = (census, result)
    return result


def _count(
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    request: FitRequest,
    stored_bytes: int | None,
    rules: VllmBehaviour,
) -> LoadedWeights:
    if not census:
        if stored_bytes is None:
            return LoadedWeights(-1, 0, 0, "unknown", "neither config nor headers tell")
        share = stored_bytes // request.world
        factor = 1.0
        if shape.quantization is None and method.argument:
            factor = method.bytes_per_linear_weight / 2
        part = int(share * factor)
        return LoadedWeights(
            part, part * 0.05, share * 0.25, "size of the weight files / GPUs", "the weight files"
        )
    counted = weight_bytes_per_rank(
        census,
        method,
        tensor_parallel=request.tensor_parallel,
        pipeline_parallel=request.pipeline_parallel,
        dtype=request.dtype,
        version=rules.version,
    )
    off = counted.per_rank * counted.error_fraction
    beside = _absorbed(shape, request, rules)
    lora, formula = 0, "none"
    if request.lora_slots is not None:
        slots = request.lora_slots
        lora = lora_bytes(
            census,
            max_loras=slots.max_loras,
            max_rank=slots.rank,
            tensor_parallel=request.tensor_parallel,
            pipeline_parallel=request.pipeline_parallel,
            model_type=shape.model_type,
            dtype_bytes=4 if request.dtype == "float32" else 2,
            version=rules.version,
        )
        formula = f"{slots.max_loras} x rank {slots.rank} x (rows + columns) x 2 B"
    return LoadedWeights(
        counted.per_rank + beside, off, off, counted.formula, counted.source, lora, formula
    )


def _absorbed(shape: ModelShape, request: FitRequest, rules: VllmBehaviour) -> int:
    """MLA before 0.8 multiplies its projections out at load: two dense matrices a layer more.

    vllm/attention/backends/mla/utils.py, 0.7.3 (W_Q_UK and W_UV_O, VLLM_MLA_PERFORM_MATRIX_ABSORPTION).
    """
    latent = next((each for each in shape.attention if each.kind == "mla"), None)
    if latent is None or not (0, 7) <= rules.version < (0, 8):
        return 0
    each = (shape.heads or 0) * (latent.latent - 64) * (shape.hidden_size or 0) * 2
    return 2 * each * latent.count // request.world
