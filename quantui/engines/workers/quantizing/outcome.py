"""What a finished checkpoint holds, told by its safetensors headers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streaming_merge.checkpoint import read_shard

if TYPE_CHECKING:
    from pathlib import Path

    from streaming_merge.checkpoint import Tensor

NAMED = 20
"""At most so many modules are named."""

_WIDE = frozenset({"F16", "BF16", "F32", "F64"})

_WEIGHTS = ("weight_packed", "qweight", "_weight_qdata", "weight_qdata", "weight", "weight:_data")
"""Last part of the name of the tensor that holds a layer's values, most particular first:
compressed-tensors (packed), AWQ and GPTQ, torchao, and whatever keeps the name (FP8, INT8, bitsandbytes)."""


def census(folder: Path) -> dict[str, Any]:
    """Matrices quantized and left in 16 bit (or 32), in ``folder`` and below it.

    ``quantized`` and ``left`` count weights with two axes or more: norms and biases are no matrices and
    stay as they are. ``left_bytes`` are the bytes of those left, ``left_modules`` their names.

    Raises:
        WorkerError: ``model.damaged``: a header is broken.
    """
    by_module: dict[str, list[Tensor]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for tensor in read_shard(file).tensors:
            module = tensor.name.rpartition(".")[0]
            # What bitsandbytes keeps of a weight stands below its name: weight.absmax, weight.quant_map.
            if ".weight." not in f"{module}.":
                by_module.setdefault(module, []).append(tensor)
    quantized, left = [], []
    for module, tensors in sorted(by_module.items()):
        parts = {tensor.name.rpartition(".")[2]: tensor for tensor in tensors}
        values = [parts[name] for name in _WEIGHTS if name in parts][:1]
        if not values:
            # Fused experts are parameters of their own names: gate_up_proj, down_proj.
            values = [tensor for tensor in tensors if len(tensor.shape) > 1]
        if any(tensor.dtype not in _WIDE for tensor in values):
            quantized.append(module)
        elif any(len(tensor.shape) > 1 for tensor in values):
            left.append((module, sum(tensor.nbytes for tensor in values)))
    return {
        "quantized": len(quantized),
        "left": len(left),
        "left_bytes": sum(size for _, size in left),
        "left_modules": [module for module, _ in left[:NAMED]],
    }
