"""A run in words: how far a step is, and the figures of a run beside what was predicted. Both faces show these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.formatting import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from quantui.domain.run_state import RunState, StepState


@dataclass(frozen=True)
class FigureRow:
    """One figure of a run. ``predicted`` and ``base`` (of the 16-bit model) in the same unit; None: there is none."""

    name: str
    value: float
    unit: str
    source: str
    predicted: float | None = None
    base: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured against predicted as a fraction: 0.1 is a tenth more."""
        return self.value / self.predicted - 1 if self.predicted else None


def figure_words(value: float, unit: str, digits: int = 2) -> str:
    """A number in its unit, without zeros that say nothing."""
    if unit == "bytes":
        return format_bytes(value)
    if digits and 0 < abs(value) < 0.1:
        digits += 2
    text = f"{value:,.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if digits else text} {unit}".strip()


def figure_rows(state: RunState) -> tuple[FigureRow, ...]:
    """What the run measured, then the peaks of its memory."""
    rows = [
        FigureRow(
            one.name, one.value, one.unit, one.source, one.predicted or None, one.base or None
        )
        for one in state.measured
    ]
    if state.peak_tree_bytes:
        rows.append(FigureRow("peak RAM", state.peak_tree_bytes, "bytes", "all steps"))
    rows += [
        FigureRow(f"peak GPU {index}", used, "bytes", "NVML, whole card")
        for index, used in state.peak_gpu_bytes
    ]
    return tuple(rows)


def elapsed_s(step: StepState, now: float) -> float | None:
    """Seconds that the step took, or has taken so far; None before it began."""
    if step.seconds is not None and step.status != "running":
        return step.seconds
    return None if step.started is None else max(0.0, now - step.started)


def amount_words(step: StepState) -> str:
    """How much is done: ``1.20 GiB of 5.00 GiB``, ``3/8 tensors``; "" where the step does not tell."""
    if step.done is None:
        return ""
    if step.unit == "bytes":
        return f"{format_bytes(step.done)} of {format_bytes(step.total)}"
    total = "?" if step.total is None else f"{step.total:.0f}"
    return f"{step.done:.0f}/{total} {step.unit}"


def left_words(step: StepState, now: float) -> str:
    """Rate and time left at it: ``120 MiB/s, 3 min 05 s left``; ``estimating...`` while that is a guess."""
    eta, rate = step.eta_s(now), step.rate(now)
    if eta is None or rate is None:
        return "estimating..."
    speed = f"{format_rate(rate)}, " if step.unit == "bytes" else ""
    return f"{speed}{format_seconds(eta)} left"


def progress_words(step: StepState, now: float) -> str:
    """Amount, rate and time left; the time since it began where the step does not tell how far it is."""
    if step.done is None:
        return "" if step.started is None else format_seconds(now - step.started)
    return f"{amount_words(step)}, {left_words(step, now)}"
