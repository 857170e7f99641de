"""In what dtype to compute: a CPU without 16-bit units is several times faster in float32.

Measured on a Xeon with AVX-512 and neither AMX nor AVX512-BF16 (torch 2.13, 2 threads): 112 GFLOP/s in
float32, 26 in bfloat16, 9 in float16. The result has the checkpoint's dtypes again, its scales included:
they are rounded to them before the weights are, so that nothing is lost by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_UNITS = {"bfloat16": ("amx_bf16", "avx512_bf16", "bf16"), "float16": ("amx_fp16", "avx512_fp16")}
"""Flags of /proc/cpuinfo that mean arithmetic in this dtype (``bf16``: Arm)."""


def slow_on_cpu(dtype: str) -> bool:
    """Whether this machine's CPU computes faster in float32 than in ``dtype``."""
    if dtype not in _UNITS:
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not set(value.split()) & set(_UNITS[dtype])
    return True


def widen(model: Any) -> dict[str, torch.dtype]:  # noqa: ANN401 - transformers has no stubs
    """Turn every 16-bit parameter of ``model`` to float32, one after the other; give what they were."""
    import torch

    was = {
        name: parameter.dtype for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    return was


def narrow(model: Any, was: dict[str, torch.dtype]) -> None:  # noqa: ANN401
    """Give the parameters of ``model`` their dtypes again; scales take their layer's.

    Values on a layer's grid stay there: scale and value are rounded by at most 2^-9 of themselves, less
    than half a step of 8 bit. Global scales (NVFP4) are float32 by definition.
    """
    import torch

    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{place}.{name}" if place else name
            dtype = was.get(full)
            if dtype is None and name.endswith("_scale") and not name.endswith("global_scale"):
                dtype = was.get(f"{place}.weight")
            if dtype is not None and parameter.dtype == torch.float32 != dtype:
                parameter.data = parameter.data.to(dtype)
