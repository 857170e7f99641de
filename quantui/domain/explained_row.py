"""One line of an explanation. In a module of its own: the wizard's first frame needs it and nothing behind it."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A subject, its value, how it was computed, from what, and whose word it is."""

    subject: str
    value: str
    formula: str
    source: str
