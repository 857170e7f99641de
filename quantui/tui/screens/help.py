"""The panel behind `?`: what a screen is for, and every key that works on it, read from its bindings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.domain.terminal_text import one_line
from quantui.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.screen import Screen

_KEYS_WIDTH = 16


@dataclass(frozen=True)
class KeyHelp:
    """One action: the keys that do it, in words, and whether it can be used now."""

    keys: str
    words: str
    enabled: bool
    everywhere: bool


def keys_of(screen: Screen[Any]) -> tuple[KeyHelp, ...]:
    """Every action that ``screen`` has a key for: those of the key bar first, the app's own ones last."""
    found: dict[tuple[str, str], tuple[list[str], str, bool, bool, bool]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        words = binding.tooltip or binding.description
        if binding.system or not words or binding.action in _PASSED_OVER:
            continue
        # Textual's own words are in title case.
        words = words.lower() if words == words.title() else words
        everywhere = isinstance(active.node, App)
        key = screen.app.get_key_display(binding)
        keys, *_ = found.setdefault(
            (binding.action, words), ([], words, active.enabled, everywhere, not binding.show)
        )
        if key not in keys:
            keys.append(key)
    order = sorted(found.values(), key=lambda one: (one[3], one[4]))
    return tuple(
        KeyHelp(" ".join(keys), words, enabled, everywhere)
        for keys, words, enabled, everywhere, _ in order
    )


_PASSED_OVER = frozenset(
    {
        *("screen.copy_text", "app.help_quit", "help_quit"),
        *("scroll_left", "scroll_right", "page_left", "page_right"),
    }
)
"""Textual's own: for the mouse's selection, and for what is wider than its widget, which nothing here is."""


class Help(ModalScreen[None]):
    """Help for the screen below it; a screen says in ``HELP`` what it is for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "close"),
    ]
    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > VerticalScroll {
        width: 90%; max-width: 100; height: auto; max-height: 90%;
        border: round $primary; padding: 1 2; background: $surface;
    }
    Help Static { height: auto; }
    """

    def __init__(self, screen: Screen[Any]) -> None:
        """Help for ``screen``, which is the one that is shown: its keys are read now."""
        super().__init__()
        self._title = title_of(screen)
        self._purpose = inspect.cleandoc(getattr(screen, "HELP", "") or "")
        self._keys = keys_of(screen)

    def compose(self) -> ComposeResult:
        """What the screen is for, its keys, and those that work everywhere."""
        with VerticalScroll() as panel:
            panel.border_title = Content(f"help: {one_line(self._title)}")
            yield Static(self._content(), markup=False)
        yield KeyBar()

    def _content(self) -> Content:
        own = [row for row in self._keys if not row.everywhere]
        everywhere = [row for row in self._keys if row.everywhere]
        parts: list[Content] = []
        if self._purpose:
            parts.append(Content(f"{self._purpose}\n\n"))
        if own:
            parts += [Content.styled("Keys of this screen\n", "bold $primary"), *_rows(own), _GAP]
        parts.append(Content.styled("Keys that work everywhere\n", "bold $primary"))
        parts += [*_rows(everywhere), _GAP]
        parts.append(
            Content.styled("Keys in brackets cannot be used at this moment.", "$text-muted")
        )
        return Content("").join(parts)


_GAP = Content("\n")


def _rows(rows: Sequence[KeyHelp]) -> list[Content]:
    parts = []
    for row in rows:
        keys = row.keys if row.enabled else f"({row.keys})"
        style = "bold" if row.enabled else "dim"
        line = Content.styled(f"  {keys:<{_KEYS_WIDTH}} ", style)
        parts.append(
            Content.assemble(line, Content.styled(f"{row.words}\n", "" if row.enabled else "dim"))
        )
    return parts


def title_of(screen: Screen[Any]) -> str:
    """A screen's name in words: its title, or what its step or class is called."""
    if screen.title:
        return screen.title
    name = getattr(screen, "NAME", "") or type(screen).__name__.removesuffix("Screen")
    return str(name).replace("_", " ").lower()
