"""Facts of checkpoints in a few words, the same in every face. Texts may quote strangers: faces sanitize them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from quantui.domain.choosing.variants import Variant
    from quantui.domain.models import ModelSpec

_PLACES = {"hub": "", "hub-cache": "in the Hub cache", "folder": "made by quantui"}


def quantization_text(spec: ModelSpec) -> str:
    """The stored quantization: ``awq, 4 bit, groups of 128``."""
    if spec.quantization is None:
        return "none"
    shape = model_shape(spec.config)
    words = [spec.quantization]
    if shape.quantization_bits is not None:
        words.append(f"{shape.quantization_bits} bit")
    if shape.group_size is not None:
        whole = shape.group_size < 0
        words.append("a scale a channel" if whole else f"groups of {shape.group_size}")
    return ", ".join(words)


def count_text(value: int | None) -> str:
    """A number of parameters in three digits: ``8.03 B``."""
    if value is None:
        return "unknown"
    for size, name in ((10**9, "B"), (10**6, "M")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return str(value)


def variant_text(variant: Variant) -> str:
    """``owner/name: AWQ 4 bit, group 128; 5.20 GiB; 1,200 downloads``."""
    downloads = "" if variant.downloads is None else f"{variant.downloads:,} downloads"
    size = "" if variant.size_bytes is None else format_bytes(variant.size_bytes)
    gated = "gated" if variant.gated else ""
    told = variant.text or variant.method or variant.quant_method
    parts = (told, size, downloads, gated, _PLACES[variant.source])
    return f"{variant.ref}: " + "; ".join(part for part in parts if part)
