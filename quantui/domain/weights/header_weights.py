"""The weights of a checkpoint from its safetensors headers: tensors of one module together, alike ones in groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.weights.weight_groups import WeightGroup
from quantui.domain.weights.weight_names import PARTS, is_bias, is_loaded, named_weight
from quantui.domain.weights.weight_parts import QUANTIZABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quantui.domain.architecture.stored_quantization import StoredQuantization
    from quantui.domain.models import TensorInfo
    from quantui.domain.weights.weight_groups import WeightRole, WeightSplit, WeightStage

_NARROW = frozenset(
    {"U8", "I8", "I32", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F8_E8M0"}
)


@dataclass(slots=True)
class _Module:
    """One module's tensors, added up."""

    elements: int = 0
    rows: int = 0
    columns: int = 0
    matrices: int = 1
    stored: int = 0
    narrow: bool = False
    scaled: bool = False
    vector: bool = False
    bias: bool = False


@dataclass(frozen=True, slots=True)
class _Alike:
    """What tensors of one group have in common."""

    role: WeightRole
    template: str
    rows: int
    columns: int
    split: WeightSplit
    stage: WeightStage
    quantized: bool


@dataclass(slots=True)
class _Total:
    count: int = 0
    elements: int = 0
    stored: int = 0
    layers: set[int] = field(default_factory=set)


def header_weights(
    tensors: Sequence[TensorInfo],
    *,
    layers: int | None,
    tied: bool,
    stored: StoredQuantization | None,
    kv_heads: int,
    known: Iterable[WeightGroup] = (),
) -> tuple[WeightGroup, ...]:
    """The groups of ``tensors`` that vLLM loads.

    ``known`` are the groups that the config gives: they tell the shape of a matrix whose tensor is packed flat.
    """
    shapes = {
        (group.name.rsplit(".", 1)[-1], group.rows * group.columns): (group.rows, group.columns)
        for group in known
        if group.columns > 1
    }
    groups: dict[_Alike, _Total] = {}
    modules = _modules(tensors, layers, stored)
    has_input = any(".embed_tokens" in name or ".wte" in name for name in modules)
    for name, module in modules.items():
        named = named_weight(name, vector=module.vector, bias=module.bias)
        if named.role == "head" and tied and has_input:
            continue
        quantized = module.narrow or module.scaled
        rows, columns = module.rows, module.columns
        if (rows, columns) == (0, 0):
            one = module.elements // module.matrices
            rows, columns = shapes.get((name.rsplit(".", 1)[-1], one), (one, 1))
        if stored is None:
            quantized = named.role in QUANTIZABLE and not module.vector
        alike = _Alike(
            named.role, named.template, rows, columns, named.split, named.stage, quantized
        )
        group = groups.setdefault(alike, _Total())
        group.count += module.matrices
        group.elements += module.elements
        group.stored += module.stored
        if named.layer is not None:
            group.layers.add(named.layer)
    return tuple(
        WeightGroup(
            alike.role,
            alike.template,
            group.elements,
            alike.rows,
            alike.columns,
            group.count,
            alike.split,
            alike.stage,
            tuple(sorted(group.layers)),
            kv_heads if alike.split == "kv_heads" else 0,
            alike.quantized,
            group.stored,
            group.stored / max(1, group.elements)
            if stored is not None and alike.quantized
            else None,
            stored.method if stored is not None and alike.quantized else "",
        )
        for alike, group in groups.items()
    )


def _modules(
    tensors: Sequence[TensorInfo], layers: int | None, stored: StoredQuantization | None
) -> dict[str, _Module]:
    modules: dict[str, _Module] = {}
    keeps_zeros = stored is None or stored.zero_points
    for tensor in tensors:
        if not is_loaded(tensor.name, layers):
            continue
        found = (
            PARTS.search(tensor.name)
            if stored is not None or tensor.name.endswith(".weight")
            else None
        )
        kind = found.lastgroup if found is not None else None
        if kind == "dropped":
            continue
        name = tensor.name[: found.start()] if found is not None else tensor.name
        if kind == "scale":
            module = modules.setdefault(name, _Module())
            module.scaled = True
            if keeps_zeros or not tensor.name.endswith((".qzeros", ".weight_zero_point")):
                module.stored += tensor.nbytes
            continue
        bias = kind is None and is_bias(name)
        key = tensor.name if bias else name
        module = modules.setdefault(key, _Module())
        module.stored += tensor.nbytes
        module.bias = bias
        module.narrow = stored is not None and tensor.dtype in _NARROW
        _measure(module, tensor, kind, stored)
    return modules


def _measure(
    module: _Module, tensor: TensorInfo, kind: str | None, stored: StoredQuantization | None
) -> None:
    """Elements and shape of what the tensor stands for."""
    shape = tensor.shape
    module.vector = len(shape) <= 1
    bits = (stored.bits if stored else None) or 4
    packed_by = 1
    if stored is not None and tensor.dtype == "U8":
        packed_by = max(1, 8 // bits)
    elif stored is not None and tensor.dtype == "I32":
        packed_by = max(1, 32 // bits)
    module.elements += tensor.elements * packed_by
    if packed_by > 1 and stored is not None and stored.format == "bitsandbytes":
        module.vector = False
        return
    if len(shape) >= 3:
        if tensor.name.endswith("_blocks") or "experts" in tensor.name:
            module.matrices = shape[0]
            module.rows, module.columns = shape[1], module.elements // max(1, shape[0] * shape[1])
        else:
            module.rows = shape[0]
            module.columns = module.elements // max(1, shape[0])
    elif len(shape) == 2:
        rows, columns = shape
        if kind == "packed" and tensor.name.endswith(".qweight"):
            # AutoAWQ packs outputs and GPTQ inputs; both keep inputs first.
            outputs = stored is not None and stored.outputs_packed
            rows, columns = (columns * packed_by, rows) if outputs else (columns, rows * packed_by)
        elif packed_by > 1:
            columns *= packed_by
        module.rows, module.columns = rows, columns
    else:
        module.rows, module.columns = (shape[0] if shape else 1), 1
