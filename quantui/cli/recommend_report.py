"""How a recommendation is told: a table of choices, then reasons, costs and refusals, in 80 columns."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from quantui.cli.page import (
    bullets,
    command,
    count_of,
    engine_line,
    heading,
    machine,
    notes,
    page,
    paragraph,
    parameters,
    put,
    remark,
    rows,
    sentence,
    sized,
    table,
    unit_of,
    verdict,
)
from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.recommend import explanation, refusal_explanation
from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from quantui.domain.choosing.recommendation import Choice, Recommendation, Refusal
    from quantui.runtime.recommending import Recommended

SHOWN = 3
"""Choices that are told with their reasons; the table has all of them."""

_GENERAL = {
    "retired": "dropped by vLLM",
    "training": "for training",
    "other-runtime": "other runtimes",
    "research": "research lines",
}
"""Refusals that hold on every machine: their methods are only named, unless everything is to be explained."""


_OF_THIS_MACHINE = ("memory", "hardware")
"""Refusals that are told before those that would hold elsewhere too."""


def print_recommendation(answer: Recommended, *, program: str, explain: bool) -> None:
    """The whole answer on stdout."""
    out = page()
    found = answer.recommendation
    _head(out, answer)
    if found.choices:
        _choices(out, found.choices)
        for choice in found.choices if explain else found.choices[:SHOWN]:
            _reasons(out, choice)
        hidden = len(found.choices) - SHOWN
        if hidden > 0 and not explain:
            out.print()
            remark(out, f"The reasons of the other {hidden} are told by --explain, and in --json.")
    else:
        _nothing(out, found)
    _adapter(out, found)
    _refused(out, found.refused, explain=explain)
    notes(out, (*answer.notes, *found.notes))
    if explain:
        _explained(out, answer)
    if found.choices:
        _next(out, answer, found.choices, program)


def _head(out: Console, answer: Recommended) -> None:
    subject, found = answer.subject, answer.recommendation
    shape = subject.shape
    stored = shape.quantization or shape.dtype or "dtype not told: 16 bit"
    paragraph(out, "model", f"{subject.model.ref}, {parameters(shape.parameters)}, {stored}")
    if subject.adapter is not None:
        paragraph(
            out, "adapter", f"{subject.adapter.ref}, rank {subject.adapter.rank or 'unknown'}"
        )
    machine(out, subject.hardware, answer.gpus, subject.described_by)
    paragraph(out, "engine", engine_line(subject.engine))
    use = answer.use_case
    users = "1 user" if found.users == 1 else f"{count_of(found.users)} users at a time"
    paragraph(out, "use", f"{use.title}: {count_of(found.context)} tokens, {users}")


def _choices(out: Console, choices: Sequence[Choice]) -> None:
    several = any(len(choice.gpus) > 1 for choice in choices)
    unit = unit_of(choice.fit.weights.bytes for choice in choices)
    grid = table(
        "#",
        "method",
        "verdict",
        *(("GPUs",) if several else ()),
        unit,
        "context",
        "tok/s",
        "loss",
        "first",
        right=(0, 4, 5, 6, 7) if several else (0, 3, 4, 5, 6),
        fold=(1,),
    )
    for choice in choices:
        grid.add_row(
            "",
            str(choice.rank),
            choice.method,
            verdict(choice.verdict),
            *((_split(choice),) if several else ()),
            sized(choice.fit.weights.bytes, unit),
            count_of(choice.fit.max_context),
            _rate(choice.speed.tokens_per_s_per_user),
            _loss(choice.quality.loss_percent),
            _first(choice),
        )
    out.print()
    put(out, grid)
    each = ", each GPU" if several else ""
    legend = (
        f"{unit}: weights{each}. context: the longest for so many users. tok/s: for each user. "
        "loss: of quality, %. first: what has to be done before."
    )
    if any(choice.verdict == "tight" for choice in choices):
        legend += " tight: it may not fit, or not all users at once; the reasons say which."
    remark(out, legend)


def _split(choice: Choice) -> str:
    parts = []
    if choice.tensor_parallel > 1:
        parts.append(f"tp {choice.tensor_parallel}")
    if choice.pipeline_parallel > 1:
        parts.append(f"pp {choice.pipeline_parallel}")
    return " ".join(parts) or "1"


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _loss(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _first(choice: Choice) -> str:
    kinds = list(dict.fromkeys(step.kind for step in choice.cost.steps))
    return " + ".join(kinds) or "nothing"


def _reasons(out: Console, choice: Choice) -> None:
    heading(out, f"{choice.rank}  {choice.title}", f"({choice.method}) {choice.verdict}")
    bullets(out, choice.reasons)
    for caution in choice.cautions:
        paragraph(out, "mind", caution, indent=2)
    for line in _cost_lines(choice):
        paragraph(out, "first", line, indent=2)
    if not choice.ready and choice.needs and not choice.cost.steps:
        paragraph(out, "first", choice.needs, indent=2)


def _cost_lines(choice: Choice) -> Iterable[str]:
    for step in choice.cost.steps:
        untold = step.seconds is not None and "about" not in step.text
        yield step.text + (f", about {format_seconds(step.seconds or 0)}" if untold else "")


def _nothing(out: Console, found: Recommendation) -> None:
    heading(out, "Nothing can be recommended here.")
    nearest = found.nearest
    if nearest is None:
        return
    paragraph(
        out,
        "nearest",
        f"{nearest.title} ({nearest.method}): {format_bytes(nearest.missing_bytes)} are missing.",
    )
    if nearest.change:
        paragraph(out, "fix", nearest.change)
    for number, way in enumerate(nearest.smaller):
        paragraph(out, "" if number else "smaller", sentence(way))


def _adapter(out: Console, found: Recommendation) -> None:
    advice = found.adapter_advice
    if advice is None:
        return
    words = {
        "merge": "merge it into the base",
        "lora": "serve it beside the base (LoRA)",
        None: "it cannot be served",
    }
    heading(out, "Adapter", words[advice.mode])
    bullets(out, advice.reasons)


def _refused(out: Console, refused: Sequence[Refusal], *, explain: bool) -> None:
    here = [refusal for refusal in refused if explain or refusal.code not in _GENERAL]
    here.sort(key=lambda refusal: refusal.code not in _OF_THIS_MACHINE)
    told = list(_together(here))
    if not explain:
        for code, words in _GENERAL.items():
            names = [refusal.method for refusal in refused if refusal.code == code]
            if names:
                told.append((words, ", ".join(names)))
    if not told:
        return
    heading(out, "Not here")
    grid = table("", "", fold=(0, 1))
    for name, why in told:
        grid.add_row("", name, one_line(why))
    put(out, grid)


def _together(refused: Sequence[Refusal]) -> Iterable[tuple[str, str]]:
    """Method and reason; methods that are refused for the same reason, but for their names, share a line."""
    shared: dict[str, list[Refusal]] = {}
    for refusal in refused:
        shared.setdefault(_why(refusal).replace(refusal.title, "the method"), []).append(refusal)
    for why, alike in shared.items():
        if len(alike) == 1:
            yield alike[0].method, sentence(_why(alike[0]))
        else:
            names = ", ".join(refusal.method for refusal in alike)
            yield f"{len(alike)} methods", f"{sentence(why)} ({names})"


def _why(refusal: Refusal) -> str:
    text = refusal.reasons[0] if refusal.reasons else ""
    return f"{text} Instead: {', '.join(refusal.instead)}." if refusal.instead else text


def _next(out: Console, answer: Recommended, choices: Sequence[Choice], program: str) -> None:
    """The commands that go on from here, for the best that can be served now and for the best of all."""
    heading(out, "Next")
    ready = next((choice for choice in choices if choice.ready), None)
    if ready is not None:
        command(out, f"{program} init", *_names(answer, ready))
    best, found, file = choices[0], answer.recommendation, answer.subject.described_by
    # With as many users as it holds: the others wait, which `fit` would call not fitting.
    users = min(found.users, best.fit.users or found.users)
    parts = [f"--context {found.context}", f"--users {users}"]
    if best.tensor_parallel > 1:
        parts.append(f"--tp {best.tensor_parallel}")
    if best.pipeline_parallel > 1:
        parts.append(f"--pp {best.pipeline_parallel}")
    if file and file != "-":
        parts.append(f"--hardware {shlex.quote(file)}")
    if best.on_cpu and answer.subject.hardware.gpus:
        parts.append("--gpus none")
    command(out, f"{program} fit", *_names(answer, best), *parts, "--explain")


def _names(answer: Recommended, choice: Choice) -> Iterable[str]:
    """The model, adapter and method as arguments; somebody's quantized checkpoint is served as it is."""
    variant, adapter = choice.variant, answer.subject.adapter
    ref = answer.subject.model.ref if variant is None else variant.path or variant.ref
    yield shlex.quote(ref)
    if adapter is not None:
        yield f"--adapter {shlex.quote(adapter.ref)}"
    yield f"--method {'none' if variant else choice.method}"


def _explained(out: Console, answer: Recommended) -> None:
    """Formula, inputs and source of every figure, a choice after the other."""
    for choice in answer.recommendation.choices:
        heading(out, f"{choice.rank}  {choice.title}: how it was computed")
        rows(out, explanation(choice, use=answer.use_case.name))
    for refusal in answer.recommendation.refused:
        heading(out, f"{refusal.title} ({refusal.method}): refused")
        rows(out, refusal_explanation(refusal))
