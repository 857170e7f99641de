"""How quantized copies of a model are shown: `quantui inspect --variants`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from quantui.domain.choosing.variants import Variant
    from quantui.runtime.variants import VariantSearch

_PLACES = {"hub": "", "hub-cache": "in the Hub cache", "folder": "made by quantui"}


def variant_rows(found: VariantSearch) -> list[tuple[str, str]]:
    """A row for each copy, best first, then the notes."""
    shown = [described(variant) for variant in found.variants] or ["no quantized ones found"]
    rows = [("copies" if number == 0 else "", text) for number, text in enumerate(shown)]
    return [*rows, *(("note", note) for note in found.notes)]


def described(variant: Variant) -> str:
    """``owner/name: AWQ 4 bit, group 128; 5.20 GiB; 1,200 downloads``."""
    downloads = "" if variant.downloads is None else f"{variant.downloads:,} downloads"
    size = "" if variant.size_bytes is None else format_bytes(variant.size_bytes)
    gated = "gated" if variant.gated else ""
    told = variant.text or variant.method or variant.quant_method
    parts = (told, size, downloads, gated, _PLACES[variant.source])
    return f"{variant.ref}: " + "; ".join(part for part in parts if part)


def variants_json(found: VariantSearch) -> dict[str, Any]:
    """What ``--json`` adds: ``variants`` with the fields of a variant, and ``variant_notes``."""
    return {
        "variants": [
            {**asdict(variant), "evidence": list(variant.evidence)} for variant in found.variants
        ],
        "variant_notes": list(found.notes),
    }
