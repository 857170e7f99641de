"""How the answer of `quantui fit` is told: the verdict first, then a table of the memory, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.cli.page import (
    count_of,
    engine_line,
    heading,
    machine,
    notes,
    page,
    paragraph,
    parameters,
    put,
    rows,
    sentence,
    sized,
    table,
    unit_of,
    verdict,
)
from quantui.domain.explained_row import Row
from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from quantui.domain.fitting.fit import Figure, Fit
    from quantui.runtime.fitting import FitAnswer


MORE_THAN = 1.02
"""Times the cache's size: above it, its tokens do not all take the bytes of one."""


def print_fit(answer: FitAnswer, *, explain: bool) -> None:
    """The whole answer on stdout."""
    out = page()
    _head(out, answer)
    _verdict(out, answer)
    _memory(out, answer)
    cautions = () if answer.verdict == "unsupported" else answer.cautions
    if cautions:
        out.print()
    for caution in cautions:
        paragraph(out, "mind", sentence(caution))
    notes(out, answer.notes)
    if explain:
        heading(out, "How it was computed")
        rows(out, _explained(answer))


def _head(out: Console, answer: FitAnswer) -> None:
    subject = answer.subject
    shape = subject.shape
    stored = shape.quantization or shape.dtype or "dtype not told: 16 bit"
    paragraph(out, "model", f"{subject.model.ref}, {parameters(shape.parameters)}, {stored}")
    if subject.adapter is not None:
        rank = subject.adapter.rank or "unknown"
        paragraph(out, "adapter", f"{subject.adapter.ref}, rank {rank}, served beside the base")
    paragraph(out, "method", f"{answer.method.title} ({answer.method.name}){_split(answer)}")
    machine(out, subject.hardware, answer.gpus, subject.described_by)
    paragraph(out, "engine", engine_line(subject.engine))


def _split(answer: FitAnswer) -> str:
    request = answer.request
    parts = []
    if request.tensor_parallel > 1:
        parts.append(f"tensor parallel {request.tensor_parallel}")
    if request.pipeline_parallel > 1:
        parts.append(f"pipeline parallel {request.pipeline_parallel}")
    return f", {', '.join(parts)}" if parts else ""


def _verdict(out: Console, answer: FitAnswer) -> None:
    from rich.text import Text

    out.print()
    words = verdict(answer.verdict)
    words.stylize("bold")
    out.print(Text.assemble(words, _asked(answer)))
    asked = answer.request.context is not None or answer.verdict not in ("fits", "tight")
    asked = asked or answer.fit.kv_cache_tokens is None
    for reason in answer.reasons if asked else ():
        paragraph(out, "why", sentence(reason))
    if answer.change is not None:
        option, meaning = answer.change
        paragraph(out, "fix", f"{option}: {meaning}" if option else meaning)
    if answer.verdict != "unsupported" and answer.fit.max_context:
        paragraph(out, "room", _room(answer))


def _asked(answer: FitAnswer) -> str:
    context = answer.request.context
    if context is None:
        return ""
    each = "" if answer.request.users == 1 else ", each"
    return f": {_requests(answer)}{each} of {count_of(context)} tokens"


def _requests(answer: FitAnswer) -> str:
    users = answer.request.users
    return "one request" if users == 1 else f"{count_of(users)} requests at a time"


def _room(answer: FitAnswer) -> str:
    """The longest context for the asked users, and how many users of the asked one."""
    fit, context = answer.fit, answer.request.context
    if fit.max_context is None:
        return "unknown"
    text = f"up to {count_of(fit.max_context)} tokens for {_requests(answer)}"
    if fit.safe_context is not None and fit.safe_context < fit.max_context:
        text += f" ({count_of(fit.safe_context)} for sure)"
    if context is not None and fit.users is not None:
        text += f"; up to {count_of(fit.users)} requests of {count_of(context)} tokens"
    return text


def _memory(out: Console, answer: FitAnswer) -> None:
    several = len(answer.gpus) > 1
    where = "RAM" if answer.on_cpu else "each GPU" if several else "the GPU"
    unit = unit_of((answer.fit.weights.bytes,))
    grid = table(f"memory of {where}", unit, "from", "to", "", right=(1, 2, 3), fold=(4,))
    for name, figure, remark in _rows(answer):
        if figure.bytes or name in ("weights", "KV cache"):
            value = sized(figure.bytes if _known(answer.fit, figure) else None, unit)
            grid.add_row("", name, value, *_band(figure, unit), remark)
    budget = answer.fit.budget_bytes
    if budget is not None:
        grid.add_row("", "vLLM may take", sized(budget, unit), "", "", _share(answer, unit))
    out.print()
    put(out, grid)


def _known(fit: Fit, figure: Figure) -> bool:
    """Whether a figure of nothing is one: weights take some room, and a cache is what is left of a budget."""
    if figure is fit.weights:
        return figure.bytes > 0
    return figure is not fit.kv_cache or fit.kv_cache_tokens is not None


def _rows(answer: FitAnswer) -> Iterable[tuple[str, Figure, str]]:
    fit = answer.fit
    tokens = ""
    if fit.kv_cache_tokens:
        each = _kib(fit.kv_bytes_per_token)
        # Windows and states stop growing: a long request takes less than its tokens times all layers.
        less = fit.kv_cache_tokens * fit.kv_bytes_per_token > MORE_THAN * fit.kv_cache.bytes
        tokens = f"{count_of(fit.kv_cache_tokens)} tokens of {'at most ' if less else ''}{each}"
    yield "weights", fit.weights, ""
    yield "KV cache", fit.kv_cache, tokens
    yield "peak of activations", fit.transient, ""
    yield "CUDA graphs", fit.graphs, ""
    yield "processes" if answer.on_cpu else "context, workspaces", fit.context, ""
    yield "LoRA slots", fit.lora, ""
    yield "other processes", fit.others, ""


def _kib(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.2f} MiB"


def _band(figure: Figure, unit: str) -> tuple[str, str]:
    if figure.low == figure.bytes == figure.high:
        return "", ""
    return sized(figure.low, unit), sized(figure.high, unit)


def _share(answer: FitAnswer, unit: str = "GiB") -> str:
    fit = answer.fit
    if answer.on_cpu:
        return "of the free RAM"
    if fit.utilization is None:
        return ""
    totals = [gpu.total_bytes for gpu in answer.gpus if gpu.total_bytes is not None]
    whole = f" of {sized(min(totals), unit)}" if totals else ""
    return f"utilization {fit.utilization:.2f}{whole}"


def _explained(answer: FitAnswer) -> Iterable[Row]:
    """How each figure was computed, and whose word that is."""
    for name, figure, _ in _rows(answer):
        value = format_bytes(figure.bytes)
        if figure.low != figure.high:
            value += f" ({format_bytes(figure.low)} to {format_bytes(figure.high)})"
        yield Row(name, value, figure.formula, figure.source)
    budget, method = answer.fit.budget_bytes, answer.method
    if budget is not None:
        yield Row("vLLM may take", format_bytes(budget), _share(answer), answer.fit.device)
    yield Row(
        "bytes a weight",
        f"{method.bytes_per_linear_weight:g}",
        method.bytes_formula,
        method.source_of("bytes_per_linear_weight"),
    )
    for refused in answer.support.refused:
        yield Row("refused", refused.text, "", refused.why or method.source)
