"""The rows of the panel behind `w` in the Model step: each figure with its formula and whose word it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.explained_row import Row
from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.tui.looking import Looked

_FROM = {
    "folder": "the files in the folder",
    "hub-cache": "the snapshot in the Hub cache",
    "hub": "the Hub's listing and the headers of its files",
}


def why_rows(looked: Looked) -> tuple[Row, ...]:
    """Where each figure of the details comes from; empty while nothing is known."""
    rows: list[Row] = []
    if looked.model is not None:
        rows += _model_rows(looked.model)
    if looked.adapter is not None:
        rows += _adapter_rows(looked.adapter)
    if looked.fit is not None:
        rows += _fit_rows(looked)
    for variant in looked.variants.variants if looked.variants else ():
        rows.append(Row(variant.ref, variant.text, "", "; ".join(variant.evidence)))
    return tuple(rows)


def _model_rows(spec: ModelSpec) -> list[Row]:
    from quantui.domain.architecture.model_shape import model_shape
    from quantui.domain.checkpoint_words import count_text

    where = _FROM[spec.source]
    shape = model_shape(spec.config, spec.tensors)
    count = spec.parameters if spec.parameters is not None else shape.parameters
    by = "sum of the elements of its tensors, packed ones unpacked" if spec.tensors else ""
    context = "" if spec.context_length is None else f"{spec.context_length} tokens"
    return [
        Row(
            "parameters",
            count_text(count),
            by or "computed from the dimensions in config.json",
            f"{where}: {'safetensors headers' if spec.tensors else 'config.json'}",
        ),
        Row("weights", format_bytes(spec.weight_bytes), "sum of the weight files' sizes", where),
        Row(
            "context",
            context or "unknown",
            "the smallest length of config.json and the tokenizer's, scaled by rope parameters as vLLM does",
            f"{where}: config.json, tokenizer_config.json",
        ),
        Row("dtype", spec.dtype or "unknown", "", f"{where}: config.json, else most bytes"),
    ]


def _adapter_rows(spec: AdapterSpec) -> list[Row]:
    where = _FROM[spec.source]
    answer = {True: "yes", False: "no", None: "unknown"}[spec.four_bit.answer]
    rows = [
        Row("adapter", format_bytes(spec.weight_bytes), "size of its weight file", where),
        Row("trained in 4 bit", answer, "strong signs outrank weak ones", "the signs below"),
    ]
    for item in spec.four_bit.evidence:
        says = "yes" if item.says_4bit else "no"
        rows.append(Row(f"{item.strength} sign", says, item.text, item.source))
    return rows


def _fit_rows(looked: Looked) -> list[Row]:
    matched = looked.fit.matched if looked.fit else 0
    formula = "rows of B x columns of A = the base's weight, module by module"
    return [Row("adapter fits", f"{matched} modules", formula, "headers of both")]
