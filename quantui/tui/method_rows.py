"""The rows of the Method step: each choice in columns, each refusal with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.answers import why_not_from_here
from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.terminal_text import one_line
from quantui.domain.units import GIB
from quantui.tui.widgets.memory_bar import bar_content, device_total, stack_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quantui.domain.choosing.recommendation import Choice, Cost, Refusal

MARKS = {
    "fits": ("✓ fits ", "$text-success"),
    "tight": ("~ tight", "$text-warning"),
}
_NO = ("✗ not  ", "$text-error")
_GENERAL = ("retired", "training", "other-runtime", "research")

HERE, MODEL, NOWHERE = (
    "not on this machine",
    "not for this model, adapter or engine",
    "not served by vLLM",
)
"""Headings of the refused, the nearest to this machine first."""

BAR_FROM = 84
"""Width from which each row has a small bar of its own."""
_BAR = 12


def table_head(width: int) -> Content:
    """The names of the columns."""
    bar = f"{'device':<{_BAR}} " if width >= BAR_FROM else ""
    text = f" # {'method':<{_title_width(width)}} {'verdict':<7} {'GiB':>6} {bar}"
    return Content.styled(
        f"{text}{'longest':>7} {'tok/s':>5} {'loss%':>5} {'first':<9}", "$text-muted"
    )


def choice_row(choice: Choice, width: int, ram_total: int | None) -> Content:
    """One choice; dim where quantui does not get there by itself."""
    mark, colour = MARKS.get(choice.verdict, _NO)
    able = not why_not_from_here(choice)
    if not able:
        mark, colour = "✗ needs", "$text-error"
    title = _cut(one_line(choice.title) + _whose(choice), _title_width(width))
    parts: list[Content | str] = [
        f"{choice.rank:>2} ",
        Content.styled(title.ljust(_title_width(width)), "bold" if able else "dim"),
        " ",
        Content.styled(mark, colour),
        f" {_gib(choice.fit.weights.bytes):>6} ",
    ]
    if width >= BAR_FROM:
        stack = stack_of(choice.fit, device_total(choice.fit, ram_total))
        drawn = bar_content(stack, _BAR, letters=False)
        parts += [drawn, " " * (_BAR + 1 - drawn.cell_length)]
    longest, rate, loss = choice.fit.max_context, choice.speed.tokens_per_s_per_user, choice.quality
    parts += [
        f"{'?' if longest is None else longest:>7} ",
        f"{_rate(rate):>5} ",
        f"{'?' if loss.loss_percent is None else f'{loss.loss_percent:.1f}':>5} ",
        _cut(_first(choice.cost), 9),
    ]
    return Content.assemble(*parts)


def refusal_row(refusal: Refusal, width: int) -> Content:
    """A method that does not work here, and why, in one line."""
    title = one_line(refusal.title)
    why = one_line(refusal.reasons[0]) if refusal.reasons else ""
    if why.startswith(title):
        why = why.removeprefix(title).strip()
    name = _cut(title, _title_width(width))
    text = f" ✗ {name.ljust(_title_width(width))} {why}"
    return Content.styled(_cut(text, width), "dim")


def refused_groups(
    refused: Sequence[Refusal],
) -> Iterable[tuple[str, tuple[Refusal, ...]]]:
    """Heading and refusals, empty groups left out."""
    for heading in (HERE, MODEL, NOWHERE):
        found = tuple(one for one in refused if _heading_of(one.code) == heading)
        if found:
            yield f"{heading} ({len(found)})", found


def _heading_of(code: str) -> str:
    if code in ("memory", "hardware"):
        return HERE
    return NOWHERE if code in _GENERAL else MODEL


def group_row(heading: str, width: int) -> Content:
    """A heading between rows."""
    return Content.styled(f"── {heading} ".ljust(width, "─")[:width], "$text-muted")


def way_of(choice: Choice) -> str:
    """How its checkpoint is had, in words."""
    if choice.variant is not None:
        whose = choice.variant.path or choice.variant.ref
        where = "on the Hub" if choice.variant.source == "hub" else "on this machine"
        return f"the checkpoint {one_line(whose)}, {where}"
    return {
        "as it is": "the checkpoint as it is",
        "in flight": "quantized by vLLM while it loads",
        "make": "to be made",
    }.get(choice.way, choice.way)


def cost_lines(choice: Choice) -> list[str]:
    """What has to be done first, a line a step, with time and disk where they are known."""
    found = []
    for step in choice.cost.steps:
        untold = step.seconds is not None and step.seconds >= 1 and "about" not in step.text
        found.append(step.text + (f", about {format_seconds(step.seconds or 0)}" if untold else ""))
    return found


def _whose(choice: Choice) -> str:
    return "" if choice.variant is None else f" ({one_line(choice.variant.publisher)})"


def _title_width(width: int) -> int:
    bar = _BAR + 1 if width >= BAR_FROM else 0
    return max(14, width - 49 - bar)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _gib(count: int) -> str:
    return f"{count / GIB:.2f}" if count < 100 * GIB else f"{count / GIB:.0f}"


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _first(cost: Cost) -> str:
    """What has to be done before serving, in nine columns: the time where it is known, else the kinds of work."""
    kinds = list(dict.fromkeys(step.kind for step in cost.steps))
    if not kinds:
        return "nothing"
    if kinds == ["download"]:
        return f"↓{format_bytes(cost.download_bytes).removesuffix(' GiB')}G"
    if "make" in kinds and cost.seconds is not None and cost.seconds >= 60:
        return f"make {_short_time(cost.seconds)}"
    return "+".join(kinds)


def _short_time(seconds: float) -> str:
    """``9m``, ``1.9h``, ``59h``: at most four columns."""
    if seconds < 3600:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    return f"{hours:.1f}h" if hours < 10 else f"{hours:.0f}h"
