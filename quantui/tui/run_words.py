"""What `w` tells of a run: predicted figures with their formulas, measured ones with their sources, every notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.formatting import format_bytes, hanging
from quantui.domain.run_words import figure_rows, figure_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.explained_row import Row
    from quantui.domain.run_words import FigureRow
    from quantui.tui.run_view import RunView


def compared(row: FigureRow) -> str:
    """A measured figure beside what was predicted: ``1.98 GiB, predicted 2.00 GiB (-1.0%)``."""
    words = figure_words(row.value, row.unit)
    if row.predicted is not None and row.difference is not None:
        words += f", predicted {figure_words(row.predicted, row.unit, 0)} ({row.difference:+.1%})"
    if row.base is not None:
        change = row.value / row.base - 1
        words += f", 16 bit {figure_words(row.base, row.unit)} ({change:+.1%})"
    return words


def figure_lines(rows: Sequence[FigureRow], width: int) -> list[str]:
    """A line a figure in ``width`` columns; what it is compared with goes below where it does not fit."""
    names = max((len(row.name) for row in rows), default=0)
    lines: list[str] = []
    for row in rows:
        value, *rest = compared(row).split(", predicted ", 1)
        lines.append(f"{row.name:<{names}}  {value}")
        for words in rest:
            beside = f"{lines[-1]}, predicted {words}"
            if len(beside) <= width or not width:
                lines[-1] = beside
            else:
                lines.append(f"    predicted {words}")
    return [hanging(line, width or None, 4) for line in lines]


def run_rows(view: RunView) -> Sequence[Row]:
    """The rows of the `w` panel."""
    from quantui.domain.explained_row import Row

    rows: list[Row] = []
    if view.plan is not None:
        estimate = view.plan.estimate
        sources = dict(estimate.sources)
        predicted = {
            "weights": format_bytes(estimate.weight_bytes),
            "kv_cache": f"{format_bytes(estimate.kv_cache_bytes)}, {estimate.kv_cache_tokens} tokens",
            "transient": format_bytes(estimate.transient_bytes),
            "overhead": format_bytes(estimate.overhead_bytes),
        }
        rows += [
            Row(f"predicted {name.replace('_', ' ')}", value, sources.get(name, ""), "computed")
            for name, value in predicted.items()
        ]
        total = "weights + KV cache + transient + overhead"
        rows.append(Row("predicted in all", format_bytes(estimate.total_bytes), total, "computed"))
    rows += [
        Row(row.name, compared(row), "", f"measured: {row.source}")
        for row in figure_rows(view.state)
    ]
    rows += [
        Row("warning" if one.level == "warning" else "note", one.text, "", one.step or "the run")
        for one in view.state.notices
    ]
    return rows
