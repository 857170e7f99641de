"""The use cases in words: a line each, what counts in them, and whose word that is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.choosing.use_cases import CRITERIA
from quantui.domain.explained_row import Row

if TYPE_CHECKING:
    from quantui.domain.choosing.use_cases import Criterion, UseCase

_MEANS: dict[Criterion, str] = {
    "speed": "tokens a second at that many users",
    "quality": "what the format loses of the model's quality",
    "memory": "bytes of the weights, against the smallest choice",
    "room": "what the weights leave of the device",
    "context": "the longest context that fits",
    "effort": "downloads, calibration, merging before it serves",
    "hardware": "whether the card has the units the format computes with",
    "cards": "how few cards are taken",
}
RECOMMENDED = "◆"
"""Stands before the recommended use."""

_BAR = 10
_BLOCKS = " ▏▎▍▌▋▊▉█"


def summary(use: UseCase, number: int, *, recommended: bool) -> Content:
    """One line: number, title, a mark for the recommended one, the summary."""
    return Content.assemble(
        f"{number} ",
        Content.styled(f"{use.title:<18}", "bold"),
        f"{RECOMMENDED if recommended else ' '} ",
        use.summary,
    )


def told(use: UseCase, why_recommended: str) -> Content:
    """The use in full: its summary and reason, and what counts in it, the heaviest first, each as a bar and in words.

    ``why_recommended`` is "" for a use that is not.
    """
    parts: list[Content] = []
    if why_recommended:
        parts.append(Content(f"{RECOMMENDED} recommended: {why_recommended}"))
    parts.append(Content(f"{use.summary} {use.reason}"))
    for name in sorted(CRITERIA, key=use.weight, reverse=True):
        share = use.weight(name)
        if share:
            parts.append(
                Content.assemble(
                    f"{name:<9}{share:>4.0%} ",
                    Content.styled(f"{_bar(share):<{_BAR}}", "$primary"),
                    Content.styled(f" {_MEANS[name]}", "$text-muted"),
                )
            )
    return Content("\n").join(parts)


def why_rows(use: UseCase) -> tuple[Row, ...]:
    """The weights with what each means, the scale of losses, the defaults, and their source."""
    judged = "quantui's judgement, which leans on: " + use.source
    rows = [
        Row(f"{name} counts", f"{use.weight(name):.0%}", _MEANS[name], judged)
        for name in sorted(CRITERIA, key=use.weight, reverse=True)
        if use.weight(name)
    ]
    uncounted = [name for name in CRITERIA if not use.weight(name)]
    if uncounted:
        rows.append(Row("does not count", ", ".join(uncounted), "", judged))
    if use.weight("quality"):
        rows.append(
            Row(
                "a loss of quality",
                f"counts as all of it at {use.loss_scale:g} %",
                f"smaller ones: (loss / {use.loss_scale:g} %) ^ {use.loss_power:g}",
                judged,
            )
        )
    rows.append(
        Row(
            "when nothing is typed",
            f"{use.context} tokens of context, {use.users} user{'s' if use.users > 1 else ''}",
            "",
            "quantui's judgement: quantui/data/use_cases.toml",
        )
    )
    if use.prefers:
        rows.append(
            Row("ranked first where they work", ", ".join(use.prefers), use.reason, use.source)
        )
    return tuple(rows)


def _bar(share: float) -> str:
    full = round(share * _BAR * 8)
    return _BLOCKS[8] * (full // 8) + (_BLOCKS[full % 8] if full % 8 else "")
