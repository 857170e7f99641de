"""The weights and LoRA slots of one rank as a fit uses them: counted once for each way to serve, then remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.weight_bytes import weight_bytes_per_rank

if TYPE_CHECKING:
    from quantui.domain.fit_facts import FitRequest, LoraSlots
    from quantui.domain.methods import Method
    from quantui.domain.model_shape import ModelShape
    from quantui.domain.vllm_versions import VllmBehaviour
    from quantui.domain.weight_groups import WeightGroup

_REMEMBERED = 512
_NO_ROTARY = frozenset({"opt", "gpt2", "bloom", "mpt", "gpt_bigcode", "mamba", "mamba2", "bert"})
_LONGEST_TABLE = 2**20
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
    )
    off = counted.per_rank * counted.error_fraction
    beside = _rotary_table(shape) + _absorbed(shape, request, rules)
    lora, formula = 0, "none"
    if request.lora_slots is not None:
        slots = request.lora_slots
        lora = lora_bytes(census, slots, request.tensor_parallel, request.pipeline_parallel)
        formula = f"{slots.max_loras} x rank {slots.rank} x (rows + columns) x 2 B"
    return LoadedWeights(
        counted.per_rank + beside, off, off, counted.formula, counted.source, lora, formula
    )


def _rotary_table(shape: ModelShape) -> int:
    """Cosines and sines of every position, in 16 bit: a buffer that vLLM counts with the weights.

    vllm/model_executor/layers/rotary_embedding/base.py; 32 MiB for 131072 positions and a head of 128.
    """
    if shape.model_type in _NO_ROTARY or not shape.context_length or not shape.attention:
        return 0
    head = 64 if any(each.kind == "mla" for each in shape.attention) else shape.head_dim or 0
    return min(shape.context_length, _LONGEST_TABLE) * head * 2


def _absorbed(shape: ModelShape, request: FitRequest, rules: VllmBehaviour) -> int:
    """MLA before 0.8 multiplies its projections out at load: two dense matrices a layer more.

    vllm/attention/backends/mla/utils.py, 0.7.3 (W_Q_UK and W_UV_O, VLLM_MLA_PERFORM_MATRIX_ABSORPTION).
    """
    latent = next((each for each in shape.attention if each.kind == "mla"), None)
    if latent is None or not (0, 7) <= rules.version < (0, 8):
        return 0
    each = (shape.heads or 0) * (latent.latent - 64) * (shape.hidden_size or 0) * 2
    return 2 * each * latent.count // request.world


def lora_bytes(
    census: tuple[WeightGroup, ...], slots: LoraSlots, tensor_parallel: int, pipeline_parallel: int
) -> int:
    """Bytes of the LoRA slots of one rank, in 16 bit: every linear layer has A and B for each slot.

    Of a layer split by rows, A is split and B whole; by columns the other way round (vllm/lora/layers/).
    """
    total = 0.0
    for group in census:
        if group.role not in ("linear", "expert", "embedding", "head") or group.columns <= 1:
            continue
        rows, columns = group.rows, group.columns
        if group.split == "row":
            columns //= tensor_parallel
        elif group.split != "none":
            rows //= tensor_parallel
        total += group.count * (rows + columns) / (pipeline_parallel if group.layers else 1)
    return int(total * slots.rank * slots.max_loras * 2)
