"""What the history says of one run, and of two side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.terminal_text import one_line
from quantui.tui import history_rows as words
from quantui.tui.screens.panel import Panel
from quantui.tui.widgets.row_table import fitted

if TYPE_CHECKING:
    from quantui.domain.run_summary import RunSummary

_NAME_WIDTH = 12
_WIDTHS = (22, 19, 19)
"""Of a comparison's first three columns: it fits into a panel of 80 columns."""
_STATUS = {"done": "✓", "reused": "↺", "failed": "✗", "running": "▸", "waiting": "·"}


def details_panel(run: RunSummary) -> Panel:
    """Facts, steps with their seconds, measured figures with their sources, notices, and where the record is."""
    parts = []
    for name, value in words.facts(run):
        parts.append(_named(name, value))
        if name == "memory" and run.memory_source:
            parts.append(_source(run.memory_source))
    parts += _error(run)
    parts += [_head("Steps")]
    parts += [
        Content(
            f"{_STATUS.get(step.status, '?')} {one_line(step.title)}: {step.status}"
            + (f", {words.seconds(step.seconds)}" if step.seconds is not None else "")
        )
        for step in run.steps
    ] or [Content("unknown")]
    parts.append(_head("Measured"))
    for one in run.figures:
        parts += [_named(one.name, words.figure_line(one)), _source(one.source or "unknown")]
    parts += [] if run.figures else [Content("nothing")]
    if run.notices:
        parts += [_head("Notices"), *(Content(f"- {one_line(text)}") for text in run.notices)]
    parts += [_head("Record"), Content(one_line(run.directory))]
    return Panel(f"run {run.run_id}", Content("\n").join(parts))


def compare_panel(left: RunSummary, right: RunSummary) -> Panel:
    """Both runs line by line; the difference is of the right one to the left one."""
    head = _columns("", words.when(left.started, year=True), words.when(right.started, year=True))
    parts = [Content.styled(f"{head}change", "bold")]
    for line in words.compare(left, right):
        text = _columns(line.name, line.left, line.right)
        parts.append(Content.assemble(text, Content.styled(line.difference, "bold $text-accent")))
    return Panel(f"{left.title} beside {right.title}", Content("\n").join(parts))


def _columns(*texts: str) -> str:
    return "".join(
        f"{fitted(one_line(text) if text.strip() == text else text, width)} "
        for text, width in zip(texts, _WIDTHS, strict=True)
    )


def _named(name: str, value: str) -> Content:
    shown = Content.styled(f"{one_line(name):<{_NAME_WIDTH}} ", "$text-muted")
    return Content.assemble(shown, one_line(value))


def _source(text: str) -> Content:
    return Content.styled(f"{'':<{_NAME_WIDTH}} source: {one_line(text)}", "$text-muted")


def _head(text: str) -> Content:
    return Content.styled(f"\n{text}", "bold $primary")


def _error(run: RunSummary) -> list[Content]:
    parts = []
    if run.what:
        parts.append(Content.styled(f"\n✗ {one_line(run.what)}", "bold $text-error"))
        parts += [Content(f"  why  {one_line(run.why)}")] if run.why else []
        parts += [Content.styled(f"  fix  {one_line(run.fix)}", "bold")] if run.fix else []
    return parts
