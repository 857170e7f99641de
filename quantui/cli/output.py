"""Everything the commands print: one place decides on colour, JSON and escaping.

Results go to stdout; progress, notices and errors to stderr, so that ``--json`` output can be piped.
Text from models, logs and the Hub is untrusted and goes through :func:`sanitize`; Rich's markup is never
interpreted in it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.formatting import hanging
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from rich.console import Console

    from quantui.domain.errors import QuantuiError


_LABEL_WIDTH = 14


def console(*, stderr: bool = False) -> Console:
    """A Rich console without markup or highlighting; honours NO_COLOR and the terminal's width."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever json can carry
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_error(error: QuantuiError, *, as_json: bool = False) -> None:
    """A :class:`QuantuiError` on stderr: what, why, the fix. Never a traceback."""
    if as_json:
        sys.stderr.write(json.dumps({"type": "error", **error.to_dict()}) + "\n")
        return
    from rich.text import Text

    out = console(stderr=True)
    width = out.width if out.is_terminal else None
    rows = (("error ", "bold red", error.what), ("  why ", "bold", error.why))
    for label, style, text in (*rows, ("  fix ", "bold", error.fix)):
        if text:
            words = Text(hanging(label + sanitize(text), width, len(label)))
            words.stylize(style, 0, len(label))
            out.print(words, soft_wrap=True)
    for line in error.detail:
        # Left to the terminal to wrap: a path or a command is copied whole.
        out.print(Text("      " + sanitize(line), style="dim"), soft_wrap=True)


def say(out: Console, text: str, *, indent: int = 4) -> None:
    """One paragraph: wrapped on a terminal with a hanging indent, a single line in a pipe."""
    from rich.text import Text

    width = out.width if out.is_terminal else None
    out.print(Text(hanging(text, width, indent)), soft_wrap=True)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Facts on stdout, a label beside each; on a terminal long ones are folded in their own column."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not out.is_terminal:
        for label, value in rows:
            out.print(Text(f"{label:<{_LABEL_WIDTH}}  {sanitize(value)}"), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(width=_LABEL_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label, style="bold"), Text(sanitize(value)))
    out.print(table)


def program_name() -> str:
    """What to type for quantui: its name where the shell finds it, else the path it was started by."""
    if shutil.which("quantui"):
        return "quantui"
    started = Path(sys.argv[0])
    return shlex.quote(sanitize(str(started))) if started.name == "quantui" else "python -m quantui"
