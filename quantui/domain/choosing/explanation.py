"""Every number and reason of a recommendation with its formula, its inputs and whose word it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.choosing.ranking import DOUBLINGS
from quantui.domain.choosing.use_cases import use_case
from quantui.domain.explained_row import Row
from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.methods import methods

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.choosing.recommendation import Choice, Refusal
    from quantui.domain.choosing.use_cases import Criterion
    from quantui.domain.fitting.fit_facts import Fit

_TITLES = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "transient": "peak of activations",
    "graphs": "CUDA graphs",
    "context": "context and communication",
    "lora": "LoRA slots",
    "others": "other processes",
}
_FORMULAS: dict[Criterion, str] = {
    "speed": f"1 + log2(tokens a second / the fastest choice's) / {DOUBLINGS:g}",
    "quality": "1 - (expected loss / the loss at which nothing is left) ^ 1.5 (best quality: ^ 1); 0.4 % on top of a "
    "loss measured by one source only, 4 % where none is known",
    "memory": f"1 + log2(the smallest choice's weights / these) / {DOUBLINGS:g}",
    "room": "1 - weights / budget",
    "context": f"1 + log2(longest context / the longest of all choices) / {DOUBLINGS:g}",
    "effort": "1 - log(1 + minutes) / log(1 + 600), downloads at 50 MB/s",
    "hardware": "1 computed in the format's own width; 0.4 stored so and computed in 16 bit; of formats that are made "
    "to compute in 16 bit, from 1 at 4 users to 0.4 (16-bit weights: 0.7) at 64; "
    "half without CUDA graphs and for bitsandbytes and GGUF; FP8 in blocks 0.9",
    "cards": f"1 + log2(fewest GPUs of all choices / GPUs) / {DOUBLINGS:g}",
}


def explanation(choice: Choice, *, use: str = "balanced") -> tuple[Row, ...]:
    """The rows for one choice; ``use`` is the use case it was ranked for."""
    return tuple(_rows(choice, use))


def refusal_explanation(refusal: Refusal) -> tuple[Row, ...]:
    """The rows for a refusal: the reason, whose word it is, and the figures where memory was short."""
    rows = [Row("refused", reason, "", refusal.source) for reason in refusal.reasons]
    if refusal.instead:
        rows.append(Row("instead", ", ".join(refusal.instead), "", refusal.source))
    if refusal.fit is not None:
        rows += _figures(refusal.fit)
    return tuple(rows)


def _rows(choice: Choice, use: str) -> Iterator[Row]:
    chosen, known = use_case(use), methods()[choice.method]
    yield from _figures(choice.fit)
    speed, quality = choice.speed, choice.quality
    rate = speed.tokens_per_s_per_user
    yield Row(
        "speed, each user",
        "unknown" if rate is None else f"{rate:.1f} tokens/s, by {speed.regime}",
        speed.formula,
        f"{speed.basis}: {speed.source}",
    )
    if speed.tokens_per_s_total is not None:
        yield Row(
            "speed, all users",
            f"{speed.tokens_per_s_total:.0f} tokens/s",
            speed.formula,
            speed.source,
        )
    loss = quality.loss_percent
    yield Row(
        "loss of quality",
        "unknown" if loss is None else f"{loss:.2f} %",
        ""
        if quality.band is None
        else f"band {quality.band[0]:.1f} to {quality.band[1]:.1f} %; {quality.note}",
        f"{quality.basis}: {quality.source}",
    )
    yield Row(
        "bytes a weight",
        f"{known.bytes_per_linear_weight:g}",
        known.bytes_formula,
        known.source_of("bytes_per_linear_weight"),
    )
    yield Row(
        "runs here",
        choice.support.how,
        "; ".join(choice.support.cautions),
        known.source_of("min_compute_capability"),
    )
    for caveat in known.caveats:
        yield Row("of the format", caveat, "", known.source)
    for step in choice.cost.steps:
        value = "unknown" if step.seconds is None else format_seconds(step.seconds)
        yield Row(f"first: {step.kind}", value, step.text, step.source)
    for name, part in choice.parts.items():
        weight = chosen.weight(name)
        worth = part / weight if weight else 0.0
        yield Row(
            f"score: {name}",
            f"{worth:.2f} x {weight:g} = {part:.3f}",
            _FORMULAS[name],
            f"{chosen.title}: {chosen.reason} {chosen.source}",
        )
    for why, taken in choice.taken.items():
        yield Row(
            "score: taken off", f"{taken:.3f}", why, "quantui's judgement, as the weights are"
        )
    yield Row(
        "score",
        f"{choice.score:.3f}",
        "sum of the parts" + (", less what is taken off" if choice.taken else ""),
        chosen.source,
    )


def _figures(result: Fit) -> Iterator[Row]:
    for name, figure in result.figures.items():
        value = f"{format_bytes(figure.bytes)} ({format_bytes(figure.low)} to {format_bytes(figure.high)})"
        yield Row(_TITLES[name], value, figure.formula, figure.source)
    if result.budget_bytes is not None:
        share = (
            "" if result.utilization is None else f"utilization {result.utilization:.2f} x total"
        )
        yield Row("budget", format_bytes(result.budget_bytes), share, result.device)
    for reason in result.reasons:
        yield Row(f"verdict: {result.verdict}", reason, "", result.device)
