"""The figures behind a plan: memory, then time and disk of each step, with formula and source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.explained_row import Row
from quantui.domain.formatting import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.plan_costs import StepCost
    from quantui.tui.planner import Planned


def plan_rows(planned: Planned) -> tuple[Row, ...]:
    """The rows of the panel behind `w`."""
    return tuple(_rows(planned))


def _rows(planned: Planned) -> Iterator[Row]:
    plan = planned.plan
    result = plan.estimate.fit
    if result is not None:
        for name, figure in result.figures.items():
            band = f"{format_bytes(figure.low)} to {format_bytes(figure.high)}"
            value = f"{format_bytes(figure.bytes)} ({band})"
            yield Row(name.replace("_", " "), value, figure.formula, figure.source)
        if result.budget_bytes is not None:
            yield Row("budget", format_bytes(result.budget_bytes), "", result.device)
        yield Row(f"verdict: {result.verdict}", "; ".join(result.reasons), "", result.device)
    engine = plan.engine
    yield Row("engine", f"{engine.name}, vLLM {engine.vllm_version}", engine.python, engine.origin)
    for cost in planned.costs:
        yield Row(cost.title, _amounts(cost), cost.text, cost.source)


def _amounts(cost: StepCost) -> str:
    if cost.made:
        return "made before"
    parts = ["" if cost.seconds is None else f"about {format_seconds(cost.seconds)}"]
    parts.append(f"{format_bytes(cost.disk_bytes)} of disk" if cost.disk_bytes else "")
    parts.append(f"{format_bytes(cost.download_bytes)} fetched" if cost.download_bytes else "")
    return ", ".join(filter(None, parts))
