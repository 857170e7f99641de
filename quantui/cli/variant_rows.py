"""How quantized copies of a model are shown: `quantui inspect --variants`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quantui.domain.checkpoint_words import variant_text

if TYPE_CHECKING:
    from quantui.runtime.variants import VariantSearch


def variant_rows(found: VariantSearch) -> list[tuple[str, str]]:
    """A row for each copy, best first, then the notes."""
    shown = [variant_text(variant) for variant in found.variants] or ["no quantized ones found"]
    rows = [("copies" if number == 0 else "", text) for number, text in enumerate(shown)]
    return [*rows, *(("note", note) for note in found.notes)]


def variants_json(found: VariantSearch) -> dict[str, Any]:
    """What ``--json`` adds: ``variants`` with the fields of a variant, and ``variant_notes``."""
    return {
        "variants": [
            {**asdict(variant), "evidence": list(variant.evidence)} for variant in found.variants
        ],
        "variant_notes": list(found.notes),
    }
