"""Which weights of an ONNX graph are quantized, told by the graph without its data."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMED = 20
"""At most so many weights are named."""

_NO_WEIGHT = re.compile(r"(_scales?|_zero_points?|_zp|cos_cache|sin_cache)$")
_PART = re.compile(r"\.weight.*$|_quantized$|_Q\d+\w*$")


def census(graph: Path) -> dict[str, Any]:
    """Matrices of ``graph`` (``model.onnx``) that are quantized and those left in floating point.

    Same fields as ``quantizing.outcome.census``; ``left_bytes`` in the graph's own float type. Scales, zero
    points and the tables of rotary embeddings are no weights.
    """
    import onnx

    whole = onnx.TensorProto
    integers = {whole.INT8, whole.UINT8, whole.INT4, whole.UINT4}
    wide = {whole.FLOAT: 4, whole.FLOAT16: 2, whole.BFLOAT16: 2}
    quantized: set[str] = set()
    left: dict[str, int] = {}
    for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer:
        if len(tensor.dims) < 2 or _NO_WEIGHT.search(tensor.name):
            continue
        name = _PART.sub("", tensor.name)
        if tensor.data_type in integers:
            quantized.add(name)
        elif tensor.data_type in wide:
            left[name] = math.prod(tensor.dims) * wide[tensor.data_type]
    return {
        "quantized": len(quantized),
        "left": len(left),
        "left_bytes": sum(left.values()),
        "left_modules": sorted(left)[:NAMED],
    }
