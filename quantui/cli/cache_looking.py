"""Looking at what takes the disk before a command acts on it, with a living line on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
import unicodedata
from typing import TYPE_CHECKING

from quantui.domain.caches.words import shown, sized

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from quantui.domain.caches.items import Kind
    from quantui.runtime.caches.inventory import Inventory

_TICK_S = 0.1


class LivingLine:
    """One line on stderr that is written over; nothing where nobody reads it, or the terminal cannot."""

    def __init__(self) -> None:
        import os

        err = sys.stderr
        self._there = err is not None and err.isatty() and os.environ.get("TERM") != "dumb"
        self._next = 0.0
        self._drawn = False

    def tell(self, text: str) -> None:
        """Show ``text`` (untrusted), ten times a second at most."""
        if not self._there or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _TICK_S
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{fitted(shown(text), width)}\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        """Leave the line empty."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn, self._next = False, 0.0

    def __enter__(self) -> LivingLine:
        """Nothing is shown yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()


def width_of(text: str) -> int:
    """Columns that it takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def fitted(text: str, width: int) -> str:
    """``text`` in ``width`` columns, its end cut off with an ellipsis."""
    if width_of(text) <= width:
        return text
    taken, kept = 1, []
    for one in text:
        taken += width_of(one)
        if taken > width:
            break
        kept.append(one)
    return "".join(kept) + "…"


def look() -> Inventory:
    """Everything that takes the disk. Ctrl-C ends it at once: nothing was begun."""
    with LivingLine() as line:
        # Shown before anything else is loaded.
        line.tell("looking at the disk ...")
        return _look(line)


def _look(line: LivingLine) -> Inventory:
    from quantui.domain.caches.items import CacheItem
    from quantui.headless import interrupt_on_signals
    from quantui.runtime.caches.inventory import Inventory, cache_disks, scan

    items: dict[str, CacheItem] = {}
    problems = []
    seen = 0
    with interrupt_on_signals():
        for found in scan():
            if isinstance(found, CacheItem):
                if found.path not in items and found.parent is None:
                    seen += found.use.on_disk
                items[found.path] = found
            else:
                problems.append(found)
            line.tell(f"looking at the disk: {len(items):,} things, {sized(seen)}")
        return Inventory(items, tuple(problems), cache_disks(items.values()))


def kinds_of(texts: Iterable[str]) -> frozenset[Kind] | None:
    """The kinds that ``--kind merged,quantized`` names; None where it was not given.

    Raises QuantuiError ``arguments.bad-value`` with the nearest.
    """
    from quantui.domain.caches.items import Kind
    from quantui.domain.quantities import choice

    known = {str(kind): str(kind) for kind in Kind}
    names = [part for text in texts for part in text.split(",") if part.strip()]
    return frozenset(Kind(choice("--kind", name, known)) for name in names) or None
