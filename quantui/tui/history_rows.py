"""Runs in words: a row each, every figure of one, and two side by side. No widgets here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.run_words import figure_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quantui.domain.run_summary import Figure, RunSummary

UNKNOWN = "unknown"
_TAIL = 19
"""Columns that a comparison has for a value."""
OUTCOMES = {
    "ok": ("✓ ok", "good"),
    "failed": ("✗ failed", "bad"),
    "cancelled": ("■ cancelled", "warn"),
    "under way": ("▸ under way", "strong"),
    "cut off": ("? cut off", "warn"),
}
"""Mark and word of an outcome, and its tone."""


@dataclass(frozen=True)
class Line:
    """One line of a comparison: what is compared, the values of two runs, and their difference in words."""

    name: str
    left: str
    right: str
    difference: str = ""


@dataclass(frozen=True)
class Plotted:
    """A figure that can be plotted over runs; ``predicted`` is marked beside it where it is known."""

    name: str
    unit: str
    value: Callable[[RunSummary], float | None]
    predicted: Callable[[RunSummary], float | None] = lambda _: None


PLOTTED = (
    Plotted("memory", "bytes", lambda run: run.measured_bytes, lambda run: run.predicted_bytes),
    Plotted("load time", "s", lambda run: run.load_seconds),
    Plotted("speed of one stream", "tokens/s", lambda run: run.tokens_per_s),
    Plotted("perplexity over 16 bit", "%", lambda run: _percent(run.quality_loss)),
    Plotted("whole run", "s", lambda run: run.seconds),
)


def _percent(part: float | None) -> float | None:
    return None if part is None else 100 * part


def when(started: float | None, *, year: bool = False) -> str:
    """``11-21 23:50`` by the clock of this machine."""
    if started is None:
        return UNKNOWN
    try:
        return time.strftime("%Y-%m-%d %H:%M" if year else "%m-%d %H:%M", time.localtime(started))
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def seconds(value: float | None) -> str:
    """A time, or that it is unknown."""
    return UNKNOWN if value is None else format_seconds(value)


def loss(value: float | None) -> str:
    """``+0.8 %`` of perplexity."""
    return UNKNOWN if value is None else f"{100 * value:+.2f} %"


def speed(value: float | None) -> str:
    """Tokens a second."""
    return UNKNOWN if value is None else f"{value:.1f} tokens/s"


def memory(run: RunSummary) -> str:
    """``0.95 GiB measured, 1.10 GiB predicted (-14 %)``."""
    if run.measured_bytes is None and run.predicted_bytes is None:
        return UNKNOWN
    if run.measured_bytes is None:
        return f"not measured, {format_bytes(run.predicted_bytes)} predicted"
    measured = f"{format_bytes(run.measured_bytes)} measured"
    if run.predicted_bytes is None:
        return f"{measured}, prediction unknown"
    text = f"{measured}, {format_bytes(run.predicted_bytes)} predicted"
    if not run.predicted_bytes:
        return text
    return f"{text} ({100 * (run.measured_bytes / run.predicted_bytes - 1):+.0f} %)"


def outcome(run: RunSummary) -> tuple[str, str]:
    """Mark and word of its outcome, and the tone."""
    return OUTCOMES.get(run.outcome, (f"? {run.outcome}", "warn"))


def facts(run: RunSummary) -> list[tuple[str, str]]:
    """What a run was, and what it measured in short: (name, value)."""
    context = UNKNOWN if run.context is None else f"{run.context} tokens"
    return [
        ("begun", when(run.started, year=True)),
        ("outcome", outcome(run)[0]),
        ("model", run.model or UNKNOWN),
        ("adapter", ", ".join(run.adapters) or ("none" if run.model else UNKNOWN)),
        ("method", run.method or UNKNOWN),
        ("engine", run.engine or UNKNOWN),
        ("context", context),
        ("memory", memory(run)),
        ("load time", seconds(run.load_seconds)),
        ("one stream", speed(run.tokens_per_s)),
        (
            "perplexity",
            f"{loss(run.quality_loss)} over 16 bit" if run.quality_loss is not None else UNKNOWN,
        ),
        ("whole run", seconds(run.seconds)),
    ]


def figure_line(one: Figure) -> str:
    """A measured figure with what was predicted and what the 16-bit model has."""
    parts = [figure_words(one.value, one.unit)]
    if one.predicted:
        parts.append(f"predicted {figure_words(one.predicted, one.unit)}")
    if one.base:
        parts.append(
            f"16 bit {figure_words(one.base, one.unit)}, {100 * (one.value / one.base - 1):+.2f} %"
        )
    return ", ".join(parts)


def compare(left: RunSummary, right: RunSummary) -> list[Line]:
    """Two runs line by line: what they were, their steps, and every figure that one of them measured."""
    lines = [
        Line(name, _tail(here), _tail(there), "" if here == there else "differs")
        for (name, here), (_, there) in zip(facts(left), facts(right), strict=True)
        if name not in _COMPUTED
    ]
    lines += [
        Line("memory", *_pair(left.measured_bytes, right.measured_bytes, "bytes")),
        Line("  predicted", *_pair(left.predicted_bytes, right.predicted_bytes, "bytes")),
        Line("load time", *_pair(left.load_seconds, right.load_seconds, "s")),
        Line("one stream", *_pair(left.tokens_per_s, right.tokens_per_s, "tokens/s")),
        Line(
            "perplexity over 16 bit",
            loss(left.quality_loss),
            loss(right.quality_loss),
            _points(left.quality_loss, right.quality_loss),
        ),
        Line("whole run", *_pair(left.seconds, right.seconds, "s")),
    ]
    for name in _names(left.steps, right.steps):
        here = next((step.seconds for step in left.steps if step.id == name), None)
        there = next((step.seconds for step in right.steps if step.id == name), None)
        lines.append(Line(f"  {name}", *_pair(here, there, "s")))
    told = {"RAM of vLLM", "decoding"}
    for name in dict.fromkeys(one.name for one in (*left.figures, *right.figures)):
        mine, theirs = left.figure(name), right.figure(name)
        unit = (mine or theirs).unit if mine or theirs else ""  # type: ignore[union-attr]
        if name not in told:
            pair = (mine.value if mine else None, theirs.value if theirs else None)
            lines.append(Line(name, *_pair(*pair, unit)))
    return lines


_COMPUTED = {"begun", "memory", "load time", "one stream", "perplexity", "whole run"}
"""Facts that a comparison shows in its head, or as numbers of its own."""


def _names(left: Sequence[object], right: Sequence[object]) -> list[str]:
    return list(dict.fromkeys(getattr(step, "id", "") for step in (*left, *right)))


def _pair(left: float | None, right: float | None, unit: str) -> tuple[str, str, str]:
    """Both values, and how much the right one is more."""

    def words(value: float | None) -> str:
        if value is None:
            return UNKNOWN
        return format_seconds(value) if unit == "s" else figure_words(value, unit)

    return words(left), words(right), _change(left, right)


def _tail(text: str) -> str:
    """A path by its end, which tells more than its beginning where there is no room."""
    return text if len(text) <= _TAIL or "/" not in text else f"…{text[1 - _TAIL :]}"


def _change(left: float | None, right: float | None) -> str:
    if not left or right is None:
        return ""
    ratio = right / left
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{100 * (ratio - 1):+.1f} %"


def _points(left: float | None, right: float | None) -> str:
    if left is None or right is None:
        return ""
    return f"{100 * (right - left):+.2f} points"
