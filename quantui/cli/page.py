"""The pieces that the answers of `fit` and `recommend` are printed from: at most 80 columns, colour optional."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.cli.output import console
from quantui.domain.formatting import format_bytes, gpu_numbers
from quantui.domain.terminal_text import one_line, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from quantui.domain.explained_row import Row
    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.runtime.engine_version import EngineVersion

COLUMNS = 80
LABEL = 9
"""Columns of the words on the left: why, fix, note."""
_GIB = 1024**3

_VERDICTS = {"fits": "green", "tight": "yellow", "does not fit": "red", "unsupported": "red"}


def page() -> Console:
    """A console on stdout, no wider than :data:`COLUMNS` nor than the terminal."""
    out = console()
    out.width = min(out.width, COLUMNS)
    return out


def put(out: Console, what: RenderableType) -> None:
    """Print ``what`` without the spaces that columns are filled up with: they would be copied and diffed."""
    from rich.segment import Segment, Segments

    kept: list[Segment] = []
    for line in out.render_lines(what, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            last = line.pop()
            line.append(last._replace(text=last.text.rstrip()))
        kept += [*line, Segment.line()]
    out.print(Segments(kept), end="")


def verdict(text: str) -> Text:
    """The verdict's word, in its colour where there are colours."""
    from rich.text import Text

    return Text(text, style=_VERDICTS.get(text, ""))


def heading(out: Console, text: str, detail: str = "") -> None:
    """A title above a part of the answer, with a line before it."""
    from rich.text import Text

    out.print()
    out.print(Text.assemble((sanitize(text), "bold"), f"  {sanitize(detail)}" if detail else ""))


def paragraph(out: Console, label: str, text: str | Text, *, indent: int = 0) -> None:
    """``label`` beside ``text``, whose lines stay in their column."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=indent + LABEL - 1, no_wrap=True)
    grid.add_column(overflow="fold")
    words = Text(one_line(text)) if isinstance(text, str) else text
    grid.add_row(Text(" " * indent + label, style="bold" if not indent else "dim"), words)
    put(out, grid)


def remark(out: Console, text: str) -> None:
    """A few words below a table, indented as it is."""
    from rich.padding import Padding
    from rich.text import Text

    put(out, Padding(Text(one_line(text), style="dim"), (0, 0, 0, 2)))


def bullets(out: Console, lines: Iterable[str], *, indent: int = 2) -> None:
    """One line of text each, with a dash."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=indent + 1, no_wrap=True, justify="right")
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", Text(one_line(line)))
    if grid.row_count:
        put(out, grid)


def notes(out: Console, texts: Iterable[str]) -> None:
    """What else is to be known, after a line."""
    kept = list(dict.fromkeys(texts))
    if kept:
        out.print()
    for text in kept:
        paragraph(out, "note", text if text.endswith((".", "!", "?")) else f"{text}.")


def command(out: Console, *parts: str) -> None:
    """A command that can be copied: long ones go on after a backslash, never within one of ``parts``."""
    from rich.text import Text

    lines = [""]
    for part in map(sanitize, parts):
        longer = f"{lines[-1]} {part}".strip()
        if lines[-1] and len(longer) > out.width - 8:
            lines.append(part)
        else:
            lines[-1] = longer
    out.print(Text("  " + " \\\n      ".join(lines)), soft_wrap=True)


def rows(out: Console, found: Iterable[Row]) -> None:
    """An explanation: each subject with its value, its formula and whose word it is."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=2)
    grid.add_column(width=19, overflow="fold")
    grid.add_column(overflow="fold")
    for row in found:
        words = Text(one_line(row.value))
        if row.formula:
            words.append(f"\n= {one_line(row.formula)}")
        if row.source:
            words.append(f"\n[{one_line(row.source)}]", style="dim")
        grid.add_row("", Text(one_line(row.subject)), words)
    put(out, grid)


def table(*columns: str, right: Sequence[int] = (), fold: Sequence[int] = ()) -> Table:
    """A table without lines, indented by two. ``right``: columns of numbers; ``fold``: of long texts."""
    from rich.table import Table

    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=any(columns))
    made.add_column("", width=0)
    for number, name in enumerate(columns):
        made.add_column(
            name,
            justify="right" if number in right else "left",
            overflow="fold",
            no_wrap=number not in fold,
            header_style="dim",
        )
    return made


def sentence(text: str) -> str:
    """``text`` with a capital at its start, unless it begins with a name, and a full stop at its end."""
    text = text.strip()
    if text.partition(" ")[0].rstrip(",:").islower():
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ")")) else f"{text}."


def unit_of(weights: Iterable[int]) -> str:
    """What a column of sizes is told in: MiB where the largest ``weights`` would be a fraction of a GiB."""
    largest = max(weights, default=0)
    return "MiB" if 0 < largest < _GIB // 2 else "GiB"


def sized(count: int | None, unit: str = "GiB") -> str:
    """Bytes with two decimals (MiB: one), without the unit: for a column that names it."""
    if count is None:
        return "?"
    return f"{count / 1024**2:,.1f}" if unit == "MiB" else f"{count / _GIB:.2f}"


def count_of(value: float | None) -> str:
    """``131,072``: groups of three, so that large numbers of tokens can be read."""
    return "?" if value is None else f"{value:,.0f}"


def parameters(count: int | None) -> str:
    """``7.62 B parameters``."""
    if count is None:
        return "unknown number of parameters"
    for size, name in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.3g} {name} parameters"
    return f"{count} parameters"


def machine(
    out: Console, report: HardwareReport, gpus: Sequence[Gpu], described_by: str | None
) -> None:
    """Where it would run."""
    for number, line in enumerate(_machine_lines(report, gpus, described_by)):
        paragraph(out, "" if number else "machine", line)


def _machine_lines(
    report: HardwareReport, gpus: Sequence[Gpu], described_by: str | None
) -> Iterable[str]:
    """The devices that are counted with, equal ones together; whose machine it is."""
    if described_by is not None:
        file = "standard input" if described_by == "-" else described_by
        yield f"A machine described by {file}, not this one."
    elif report.simulated:
        yield "A described machine, not this one."
    if not gpus:
        host = report.host
        yield (
            f"Without a GPU: vLLM's CPU engine, {format_bytes(host.ram_total_bytes)} RAM, "
            f"{format_bytes(host.ram_available_bytes)} free"
        )
    seen: dict[tuple[object, ...], list[Gpu]] = {}
    for gpu in gpus:
        key = (gpu.name, gpu.total_bytes, gpu.free_bytes, gpu.compute_capability)
        seen.setdefault(key, []).append(gpu)
    for alike in seen.values():
        gpu = alike[0]
        indices = dict.fromkeys(item.index for item in alike)
        numbers = gpu_numbers(list(indices))
        if len(indices) < len(alike):
            numbers = f"{len(alike)} slices of {numbers}"
        capability = ".".join(map(str, gpu.compute_capability or ())) or "unknown"
        each = " each" if len(alike) > 1 else ""
        yield (
            f"{numbers}: {gpu.name or 'unknown'}, "
            f"{format_bytes(gpu.total_bytes)}, {format_bytes(gpu.free_bytes)} free{each}, "
            f"compute capability {capability}"
        )


def engine_line(engine: EngineVersion) -> str:
    """Which vLLM, why it is this one, and whether it was asked what it supports."""
    if engine.python is None:
        return f"vLLM {engine.version} ({engine.origin})"
    asked = (
        "by its own word" if engine.capabilities else "not asked what it supports: --probe-engine"
    )
    return f"vLLM {engine.version} ({engine.origin}; {asked})"
