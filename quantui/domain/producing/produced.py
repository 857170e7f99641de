"""What vLLM meets when a recipe has been carried out: its size, and what of it vLLM does not read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.methods import method
from quantui.domain.producing.producers import makings

if TYPE_CHECKING:
    from quantui.domain.methods import Method
    from quantui.domain.producing.recipe import Recipe


def produced_method(recipe: Recipe) -> Method:
    """The catalogue's method that is served afterwards, with the recipe's real width and groups.

    vLLM finds the format in the checkpoint, so it has no argument, and it is not made while loading.
    """
    written = method(recipe.writes)
    bits, group = _average_bits(recipe), recipe.group_size
    changed = replace(
        written,
        argument="",
        older_arguments=(),
        in_flight=False,
        title=written.title.replace(", in flight", ", stored"),
    )
    same_group = group is None or group == written.group_size
    same = bits == written.weight_bits and same_group and recipe.symmetric is not False
    if same or recipe.writes in _OWN_BYTES:
        return changed if group is None else replace(changed, group_size=_grouped(group))
    width, formula = _bytes_a_weight(bits, group, asymmetric=recipe.symmetric is False)
    # The CPU's kernels take 4 bit only (vLLM 0.32, kernels/linear/mixed_precision/cpu.py).
    on_cpu = written.cpu and (bits == 4 or written.activation_bits < 16)
    title = changed.title.replace(f"{written.weight_bits:g} bit", f"{bits:g} bit")
    return replace(
        changed,
        weight_bits=bits,
        group_size=_grouped(group),
        bytes_per_linear_weight=width,
        bytes_formula=formula,
        cpu=on_cpu,
        title=title,
    )


def unread_by_vllm(recipe: Recipe, *, on_cpu: bool) -> str | None:
    """Why vLLM refuses what ``recipe`` writes, whatever the device; None: it reads it.

    (vLLM 0.32, quantization/auto_gptq.py, auto_awq.py and inc/inc.py, as for any checkpoint.)
    """
    if recipe.writes == "gptq" and recipe.symmetric is False:
        return "vLLM reads symmetric GPTQ only (vLLM 0.32, quantization/auto_gptq.py, TYPE_MAP)."
    widths = (4,) if on_cpu else (4, 8)
    if recipe.writes in ("gptq", "autoround") and recipe.bits not in widths:
        takes = "4 bit on the CPU" if on_cpu else "4 and 8 bit"
        return f"vLLM reads {takes} (vLLM 0.32, quantization/auto_gptq.py and inc/inc.py)."
    if recipe.mixed_bits is not None and on_cpu:
        return (
            f"There is no CPU kernel for {recipe.mixed_bits}-bit weights (own run with vLLM 0.32)."
        )
    return None


_OWN_BYTES = frozenset(
    {"torchao", "bitsandbytes", "bitsandbytes_8bit", "nvfp4", "mxfp4", "mxfp8", "w4a8"}
)
"""Formats whose bytes a weight are the catalogue's, whatever the recipe's groups are."""

_ROW = 4096
"""Inputs of a row that shares one scale, as the catalogue counts."""


def _average_bits(recipe: Recipe) -> float:
    """Bits a weight, over the wide ones and the others."""
    if recipe.mixed_bits is None:
        return recipe.bits
    share = makings()[recipe.method][recipe.producer].mixed_share
    return recipe.bits + share * (recipe.mixed_bits - recipe.bits)


def _grouped(group: int | None) -> int | None:
    return None if group in (None, -1) else group


def _bytes_a_weight(bits: float, group: int | None, *, asymmetric: bool) -> tuple[float, str]:
    size = _ROW if group in (None, -1) else group
    assert size is not None
    width, formula = bits / 8 + 2 / size, f"{bits:g} bit + 16-bit scale / {size}"
    if asymmetric:
        width, formula = width + bits / 8 / size, f"{formula} + {bits:g}-bit zero point / {size}"
    return width, f"{formula} = {width:.4f}"
