"""The smallest Textual app there is, and one whose list answers to keys: what the wizard is compared with."""

from __future__ import annotations

import sys

from textual.app import App, ComposeResult
from textual.widgets import OptionList, Static


class Bare(App[None]):
    """One line of text."""

    def compose(self) -> ComposeResult:
        """Nothing else."""
        yield Static("a bare app")


class Listing(App[None]):
    """One list."""

    def compose(self) -> ComposeResult:
        """As many lines as the list of use cases has."""
        yield OptionList(*(f"option {number}" for number in range(10)))


if __name__ == "__main__":
    (Listing() if "list" in sys.argv else Bare()).run()
