"""The lists of the Model step: which entries a tab holds, and how each is shown in a line."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from quantui.domain.formatting import format_bytes
from quantui.domain.found import Found
from quantui.domain.terminal_text import one_line
from quantui.tui.widgets.row_table import Cell, Column, RowTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.found import Kind

TABS = ("cache", "folders", "hub", "adapters")
TITLES = {"cache": "Hub cache", "folders": "folders", "hub": "Hub search", "adapters": "adapters"}
MAKE_DEMO = Found(
    "model",
    "demo",
    "demo: a small model and adapter",
    complete=False,
)
"""Stands in the list of folders while the demo's model is not made."""
MAKE_DEMO_KEY = MAKE_DEMO.key

_NAME = Column("name", 16, grows=True)
_COLUMNS = {
    "cache": (
        _NAME,
        Column("stored as", 16),
        Column("size", 9, right=True),
        Column("", 8),
    ),
    "hub": (
        _NAME,
        Column("stored as", 18),
        Column("params", 8, right=True),
        Column("downloads", 10, right=True),
    ),
    "adapters": (
        _NAME,
        Column("base", 22),
        Column("rank", 4, right=True),
        Column("size", 9, right=True),
        Column("", 8, least=76),
    ),
}
_COLUMNS["folders"] = _COLUMNS["cache"]


@dataclass
class Entries:
    """What was found, by tab, in the order it was found, each once."""

    by_tab: dict[str, list[Found]] = field(default_factory=lambda: {tab: [] for tab in TABS})
    _known: set[tuple[str, str, str | None]] = field(default_factory=set)

    def add(self, found: Iterable[Found]) -> None:
        """Entries of this machine; an adapter goes to the adapters wherever it lies."""
        for one in found:
            key = (one.kind, *one.key)
            if key in self._known:
                continue
            self._known.add(key)
            tab = "cache" if one.place == "hub-cache" else "folders"
            self.by_tab["adapters" if one.kind == "adapter" else tab].append(one)

    def holds(self, tab: str, key: tuple[str, str | None]) -> bool:
        """Whether ``tab`` has the entry with ``key``."""
        return any(one.key == key for one in self.by_tab[tab])

    def shown(self, tab: str, text: str) -> list[Found]:
        """The entries of ``tab`` that match ``text``, before them what ``text`` itself may name."""
        words = tuple(text.lower().split())
        every = self.by_tab[tab]
        found = every if tab == "hub" else [one for one in every if one.matches(words)]
        named = text.strip()
        if not names_one(named) or any(one.ref == named for one in found):
            return list(found)
        kind: Kind = "adapter" if tab == "adapters" else "model"
        return [Found(kind, "typed", named), *found]


def names_one(text: str) -> bool:
    """Whether ``text`` may be a path or a Hub id, and not only words to look for."""
    if not text or (len(text.split()) > 1 and not text.startswith(("/", "~", "."))):
        return False
    owner, slash, name = text.partition("/")
    return text.startswith(("/", "~", "./", "../")) or bool(slash and owner and name)


class FoundTable(RowTable[Found]):
    """The list of a tab. ``chosen`` and ``mate``: keys of what was answered, and of the picked adapter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "screen.turn(-1)", "tab to the left", show=False),
        Binding("right", "screen.turn(1)", "tab to the right", show=False),
        Binding("space", "screen.adapter", "adapter", show=False),
    ]
    DEFAULT_CSS = """
    FoundTable { background: $background; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(_COLUMNS["cache"], self._line, id=id)
        self._tab = "cache"
        self.chosen: tuple[str, str | None] | None = None
        self.mate: tuple[str, str | None] | None = None
        self._now = time.time()

    def use(self, tab: str) -> None:
        """Show the columns of ``tab``."""
        self._tab = tab
        self._columns = _COLUMNS[tab]
        self.refresh()

    def _line(self, found: Found) -> tuple[Cell, ...]:
        name, nothing = self._title(found), [Cell("")] * len(self._columns)
        if found.place == "typed":
            return (name, Cell("⏎ looks it up", "muted"), *nothing)
        if found.key == MAKE_DEMO_KEY:
            return (name, Cell("can be made here", "muted"), Cell("3 min"), *nothing)
        if self._tab == "hub":
            return (name, *self._hub_cells(found))
        size = format_bytes(found.size_bytes)
        if self._tab == "adapters":
            rank = "?" if found.rank is None else str(found.rank)
            base = _end(found.base or "not named", 22)
            return (name, Cell(base, "muted"), Cell(rank), Cell(size), self._state(found))
        stored = found.stored or found.dtype or "unknown"
        return (name, Cell(stored, "muted"), Cell(size), self._state(found))

    def _hub_cells(self, found: Found) -> tuple[Cell, ...]:
        from quantui.domain.checkpoint_words import count_text

        count = "" if found.downloads is None else _short(found.downloads)
        stored = "adapter" if found.kind == "adapter" else found.stored or "not quantized"
        size = "" if found.parameters is None else count_text(found.parameters)
        gated = "gated, " if found.gated else ""
        return (Cell(f"{gated}{stored}", "muted"), Cell(size), Cell(count))

    def _title(self, found: Found) -> Cell:
        mark = "  "
        if found.problem:
            mark = "! " if found.place == "hub" else "✗ "
        elif found.key == self.mate:
            mark = "+ "
        elif found.key == self.chosen:
            mark = "✓ "
        width = self._room()
        name = one_line(found.ref)
        if found.place in ("folder", "made", "demo") and found.path:
            name = one_line(_end(_from_home(found.path), width))
        tone = "muted" if found.problem else "strong" if mark in ("✓ ", "+ ") else ""
        return Cell(f"{mark}{name}", tone)

    def _room(self) -> int:
        """Cells of the terminal that a name gets, without its mark."""
        width = self.scrollable_content_region.width
        layout = self._layout(width)
        return max(8, next((taken for column, taken in layout if column.grows), 20) - 2)

    def _state(self, found: Found) -> Cell:
        if found.problem:
            return Cell("unusable", "bad")
        if found.place == "made":
            return Cell("made", "good")
        if found.place == "demo":
            return Cell("demo", "good")
        if not found.complete:
            return Cell("partly", "warn")
        return Cell(_ago(found.last_used, self._now), "muted")


def _from_home(path: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


def _end(text: str, width: int) -> str:
    """The end of a long path says more than its beginning."""
    return text if len(text) <= width else f"…{text[-(width - 1) :]}"


def _short(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _ago(at: float | None, now: float) -> str:
    if at is None:
        return ""
    days = int(max(0.0, now - at) // 86400)
    return "today" if days == 0 else f"{days} d ago" if days < 365 else f"{days // 365} y ago"


@dataclass
class ModelPlace:
    """Where the person was in the Model step, kept while other steps are shown."""

    tab: str = "cache"
    texts: dict[str, str] = field(default_factory=lambda: dict.fromkeys(TABS, ""))
    keys: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    mate: Found | None = None
    searched: str = ""
    results: list[Found] = field(default_factory=list)
