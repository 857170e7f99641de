"""One option of a profile in words: its line in the list, and what there is to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.terminal_text import one_line
from quantui.tui.option_rows import shown_value, type_words

if TYPE_CHECKING:
    from quantui.tui.option_rows import OptionRow

_NAME = 26


def about_content(row: OptionRow) -> Content:
    """Type, limits, meaning, and where its value comes from."""
    if row.locked:
        whose = f"chosen in {row.locked}"
    elif row.by_hand:
        whose = "set by hand"
    else:
        whose = "from the answers or the profile" if row.changed else "the default"
    example = row.option.example
    told = f"now {shown_value(row.value)} ({whose}); default {shown_value(row.default)}"
    told += "" if example is None else f"; for example {shown_value(example)}"
    return Content.assemble(
        Content.styled(row.path, "bold"),
        f": {type_words(row)}\n{row.option.help}\n",
        Content.styled(one_line(told), "$text-muted"),
    )


def option_line(row: OptionRow, width: int) -> Content:
    """Mark, name and value: ``*`` set by hand, ``+`` not at its default, ``=`` chosen in a step."""
    mark = "=" if row.locked else "*" if row.by_hand else "+" if row.changed else " "
    style = "bold" if row.changed or row.by_hand else ""
    value = one_line(shown_value(row.value))
    room = max(10, width - _NAME - 3)
    cut = value if len(value) <= room else value[: room - 1] + "…"
    shade = "" if row.changed else "$text-muted"
    return Content.assemble(
        Content.styled(f"{mark} ", "bold $text-warning"),
        Content.styled(f"{row.name:<{_NAME}}", style),
        Content.styled(cut, f"{style} {shade}".strip()),
    )
