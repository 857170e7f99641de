"""What the Method step says of the highlighted row: how it is had, why it is there, what it costs, what to mind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.answers import why_not_from_here
from quantui.domain.explained_row import Row
from quantui.domain.formatting import format_bytes
from quantui.domain.terminal_text import one_line
from quantui.tui.method_rows import cost_lines, way_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.choosing.recommendation import Choice, Recommendation, Refusal
    from quantui.runtime.recommending import Recommended

MORE = " … w: all"
_LABEL = 7


def choice_words(choice: Choice, notes: Sequence[str], width: int, lines: int) -> Content:
    """A choice in at most ``lines`` lines, ``notes`` on all of them last; what there is no room for is behind `w`."""
    split = _split(choice)
    head = Content.assemble(
        Content.styled(one_line(choice.title), "bold"), f": {way_of(choice)}{split}"
    )
    told: list[tuple[str, str, str]] = []
    why_not = why_not_from_here(choice)
    if why_not:
        told.append(("not", why_not, "$text-error"))
    told += [("first", line, "") for line in cost_lines(choice)]
    cautions = [("mind", line, "$text-warning") for line in choice.cautions]
    reasons = [("why" if not place else "", line, "") for place, line in enumerate(choice.reasons)]
    return _laid_out(
        head, [*told, *reasons[:3], *cautions, *reasons[3:], *_notes(notes)], width, lines
    )


def refusal_words(refusal: Refusal, width: int, lines: int) -> Content:
    """A refusal in at most ``lines`` lines."""
    head = Content.assemble(
        Content.styled(one_line(refusal.title), "bold"), " cannot be picked here"
    )
    told = [
        ("why" if not place else "", line, "$text-error" if not place else "")
        for place, line in enumerate(refusal.reasons)
    ]
    if refusal.instead:
        told.append(("take", ", ".join(refusal.instead), ""))
    if refusal.source:
        told.append(("source", refusal.source, "$text-muted"))
    return _laid_out(head, told, width, lines)


def nothing_words(found: Recommendation, width: int, lines: int) -> Content:
    """That nothing can be recommended, what comes nearest, and what would help."""
    head = Content.styled("Nothing of this fits here.", "bold $text-error")
    told: list[tuple[str, str, str]] = []
    nearest = found.nearest
    if nearest is not None:
        missing = format_bytes(nearest.missing_bytes)
        told.append(("nearest", f"{nearest.title}: {missing} are missing, for one user alone.", ""))
        if nearest.change:
            told.append(("fix", nearest.change, "bold"))
        told += [("or", one_line(way), "") for way in nearest.smaller]
    told += _notes(found.notes)
    return _laid_out(head, told, width, lines)


def why_rows(row: Choice | Refusal, known: Recommended) -> tuple[Row, ...]:
    """Every figure of a row, then what holds for all of them: the adapter, notes on the search and the machine."""
    from quantui.domain.choosing.recommendation import Refusal
    from quantui.domain.recommend import explanation, refusal_explanation

    use = known.use_case.name
    rows = refusal_explanation(row) if isinstance(row, Refusal) else explanation(row, use=use)
    found = known.recommendation
    advice = found.adapter_advice
    told = () if advice is None else advice.reasons
    source = "" if advice is None else advice.source
    adapter = (Row("adapter", why, "", source) for why in told)
    notes = (Row("note", note, "", "") for note in (*known.notes, *found.notes))
    return (*rows, *adapter, *notes)


def _notes(notes: Sequence[str]) -> list[tuple[str, str, str]]:
    return [("note", note, "") for note in notes]


def _split(choice: Choice) -> str:
    if len(choice.gpus) < 2:
        return ""
    ways = []
    if choice.tensor_parallel > 1:
        ways.append(f"tensor parallel {choice.tensor_parallel}")
    if choice.pipeline_parallel > 1:
        ways.append(f"pipeline parallel {choice.pipeline_parallel}")
    return f", on {len(choice.gpus)} GPUs ({', '.join(ways)})"


def _laid_out(
    head: Content, told: Sequence[tuple[str, str, str]], width: int, lines: int
) -> Content:
    """Label and text in lines of ``width``; the last one says that there is more."""
    import textwrap

    made: list[Content] = [head]
    for label, text, style in told:
        wrapped = textwrap.wrap(one_line(text), max(20, width - _LABEL - 1)) or [""]
        for number, line in enumerate(wrapped):
            first = label if not number else ""
            made.append(
                Content.assemble(
                    Content.styled(f"{first:<{_LABEL}} ", "$text-muted"),
                    Content.styled(line, style),
                )
            )
    if len(made) > lines:
        made = made[:lines]
        cut = made[-1].plain.rstrip()[: width - len(MORE)]
        made[-1] = Content.assemble(cut, Content.styled(MORE, "$text-muted"))
    return Content("\n").join(made)
