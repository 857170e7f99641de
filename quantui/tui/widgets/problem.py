"""An error as a person can use it: what, why, the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from quantui.domain.errors import QuantuiError


def problem_content(error: QuantuiError) -> Content:
    """The error's parts, each on lines of its own; texts may quote strangers and carry no markup."""
    parts = [Content.styled(f"✗ {sanitize(error.what)}", "bold $text-error")]
    if error.why:
        parts.append(Content(f"  why  {sanitize(error.why)}"))
    if error.fix:
        parts.append(Content.styled(f"  fix  {sanitize(error.fix)}", "bold"))
    parts += [
        Content.styled(f"       {sanitize(line)}", "$text-muted") for line in error.detail[:6]
    ]
    return Content("\n").join(parts)


def report_text(error: QuantuiError) -> str:
    """The same as plain text, to be copied into a report."""
    lines = [f"{error.code}: {error.what}"]
    lines += [f"why: {error.why}"] if error.why else []
    lines += [f"fix: {error.fix}"] if error.fix else []
    return sanitize("\n".join([*lines, *error.detail]), keep_newlines=True)


class Problem(Static):
    """Shows an error where its cause was asked for; nothing while there is none."""

    DEFAULT_CSS = """
    Problem { height: auto; padding: 0 1; display: none; }
    Problem.-there { display: block; }
    """

    def tell(self, error: QuantuiError | None) -> None:
        """Show ``error``, or nothing."""
        self.set_class(error is not None, "-there")
        self.update(problem_content(error) if error is not None else "")
