"""What a person at a terminal is told while facts are looked up; in a pipe and in scripts nothing is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from quantui.cli.output import console, say
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.runtime.file_hashes import Progress


def on_terminal() -> bool:
    """Whether somebody reads stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def tell(text: str) -> None:
    """One line of progress."""
    if on_terminal():
        say(console(stderr=True), f"  · {sanitize(text)}")


def hashing() -> Progress | None:
    """Told of large files that are read to know them by their content."""
    if not on_terminal():
        return None
    from quantui.cli.replay import tell_of_large_files

    return tell_of_large_files()


def asking_engine() -> Callable[[dict[str, object]], None]:
    """Told of the phases of an engine that is asked what it supports."""
    return lambda event: tell(
        f"asking the engine what it supports: {event.get('name', event.get('type', ''))}"
    )
