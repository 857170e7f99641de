"""The lists of the Model step: its tabs, the line that narrows them, what is on this machine and what the Hub has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from quantui.domain.found import Found
from quantui.tui.model_list import (
    MAKE_DEMO,
    TABS,
    TITLES,
    Entries,
    FoundTable,
    ModelPlace,
)
from quantui.tui.model_words import HINTS, nothing_found, nothing_here, tabs_content
from quantui.tui.model_work import ModelWork
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.fact_sheet import FactSheet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual import events
    from textual.timer import Timer
    from textual.widget import Widget

    from quantui.domain.errors import QuantuiError
    from quantui.tui import model_messages as told
    from quantui.tui.widgets.row_table import RowTable

_BROAD = 150
"""Columns of the terminal from which the facts stand beside the list."""


class FindInput(Input):
    """The line to filter, to search, or to type a name in."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "screen.leave_line", "to the list", show=False),
    ]


class ModelLists(StepScreen):
    """Four lists and a line that narrows them; what follows from the highlighted row is a subclass's."""

    NAME = "model"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(n), f"tab('{tab}')", TITLES[tab], show=False)
            for n, tab in enumerate(TABS, 1)
        ),
        Binding("r", "refresh", "read again", show=False),
    ]
    DEFAULT_CSS = """
    ModelLists #tabs, ModelLists #doing { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    ModelLists #doing { display: none; background: $panel; }
    ModelLists #doing.-there { display: block; }
    ModelLists #find { height: 1; border: none; padding: 0 1; background: $panel; }
    ModelLists #both { height: 1fr; layout: vertical; }
    ModelLists #found { height: 1fr; }
    ModelLists #facts { height: 1fr; }
    ModelLists #empty { display: none; height: 1fr; padding: 1 2; color: $text-muted; }
    ModelLists.-none #empty { display: block; }
    ModelLists.-none #list { display: none; }
    ModelLists.-zoom #found { display: none; }
    ModelLists.-broad #both { layout: horizontal; }
    ModelLists.-broad #found { width: 58%; height: 100%; }
    ModelLists.-broad #facts { width: 1fr; height: 100%; margin-left: 1; }
    ModelLists.-broad.-zoom #facts { margin-left: 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._work = ModelWork(self.post_message)
        self._entries = Entries()
        self._reading = True
        self._about = 0
        self._cache = ""
        self._added: tuple[str, ...] = ()
        self._auto: tuple[str, str | None] | None = None
        self._waiting: dict[str, Timer] = {}
        self._search_error: QuantuiError | None = None
        self._problem: QuantuiError | None = None
        self._searching = False

    # --- parts

    @property
    def _place(self) -> ModelPlace:
        place: ModelPlace = self.session.places.setdefault("model", ModelPlace())
        return place

    @property
    def _table(self) -> FoundTable:
        return self.query_one(FoundTable)

    @property
    def _line(self) -> FindInput:
        return self.query_one(FindInput)

    @property
    def _facts(self) -> FactSheet:
        return self.query_one(FactSheet)

    def compose_body(self) -> Iterable[Widget]:
        """Tabs, the line, the list, the facts."""
        tabs = Static(id="tabs", markup=False)
        tabs.auto_links = False
        yield tabs
        yield FindInput(id="find", select_on_focus=False)
        with Container(id="both"):
            with Vertical(id="found"):
                yield FoundTable(id="list")
                yield Static(id="empty", markup=False)
            yield FactSheet(id="facts")
        yield Static(id="doing", markup=False)

    def on_mount(self) -> None:
        """Show what was there before, and read what is there now."""
        answers, loaded = self.session.answers, self.session.loaded
        model, revision = answers.model, answers.revision
        if loaded is not None:
            model, revision = loaded.model.id, loaded.model.revision
            mate = loaded.adapter
            self._place.mate = (
                Found("adapter", "typed", mate.id, revision=mate.revision) if mate.id else None
            )
        if model:
            self._table.chosen = (model, revision)
        self._entries.by_tab["hub"] = self._place.results
        self._show_tab(self._place.tab)
        self._table.focus()
        self._work.browse(self._about)

    def on_resize(self, event: events.Resize) -> None:
        """The facts stand beside the list where both have room."""
        self.set_class(event.size.width >= _BROAD, "-broad")

    def on_unmount(self) -> None:
        """Nothing goes on for a screen that is gone."""
        self._work.close()

    # --- tabs and lists

    def action_tab(self, tab: str) -> None:
        """Show a tab."""
        self._show_tab(tab)
        if tab == "hub" and not self._place.results:
            self.set_focus(self._line)
        elif not self._line.has_focus:
            self._focus_list()

    def action_turn(self, by: int) -> None:
        """The tab to the right or to the left."""
        self.action_tab(TABS[(TABS.index(self._place.tab) + by) % len(TABS)])

    def _show_tab(self, tab: str) -> None:
        self._place.tab = tab
        self._show_problem(self._search_error if tab == "hub" else None)
        self._line.placeholder = HINTS[tab]
        with self.prevent(Input.Changed):
            self._line.value = self._place.texts[tab]
        self._table.use(tab)
        self._show_list()

    def _show_list(self) -> None:
        """The rows of the tab; the one that had the cursor keeps it."""
        place = self._place
        rows = self._entries.shown(place.tab, place.texts[place.tab])
        if place.tab == "folders" and self._offers_demo():
            rows.append(MAKE_DEMO)
        self._table.mate = place.mate.key if place.mate else None
        wanted = place.keys.get(place.tab) or self._table.chosen
        numbers = {row.key: number for number, row in enumerate(rows)}
        cursor = numbers.get(wanted, 0) if wanted else 0
        if rows and rows[0].place == "typed" and len(rows) > 1 and not wanted:
            cursor = 1
        self.set_class(not rows, "-none")
        if not rows:
            self.query_one("#empty", Static).update(Content(self._nothing()))
        self._auto = rows[cursor].key if rows else None
        self._table.show(rows, cursor=cursor)
        self._show_tabs()
        self._highlighted()

    def _offers_demo(self) -> bool:
        text = self._place.texts["folders"].lower()
        made = any(one.place == "demo" for one in self._entries.by_tab["folders"])
        return not self._reading and not made and text in MAKE_DEMO.ref

    def _show_tabs(self) -> None:
        place = self._place
        counts: dict[str, int | None] = {
            tab: len(found) if found or (tab != "hub" and not self._reading) else None
            for tab, found in self._entries.by_tab.items()
        }
        content = tabs_content(place.tab, counts, place.mate)
        busy = self._searching if place.tab == "hub" else self._reading
        shown = content + " reading ..." if busy else content
        self.query_one("#tabs", Static).update(shown, layout=False)

    def _nothing(self) -> str:
        tab, text = self._place.tab, self._place.texts[self._place.tab].strip()
        if tab == "hub":
            return nothing_found(
                searching=self._searching,
                failed=self._search_error is not None,
                searched=bool(text) and self._place.searched == text,
            )
        filtered = bool(self._entries.by_tab[tab])
        return nothing_here(tab, self._cache, reading=self._reading, filtered=filtered)

    def action_refresh(self) -> None:
        """Read this machine again."""
        self._about += 1
        self._reading = True
        self._entries = Entries()
        self._entries.by_tab["hub"] = self._place.results
        self._work.browse(self._about)
        self._show_tabs()

    def on_listed(self, message: told.Listed) -> None:
        """More of this machine was read."""
        if message.about != self._about:
            return
        self._entries.add(message.found)
        self._reading = not message.done
        if message.done:
            self._cache, self._added = message.cache, message.folders
        self._show_list()
        if message.done and not self._place.keys and self._table.chosen is not None:
            self._go_to_chosen(self._table.chosen)

    def _go_to_chosen(self, chosen: tuple[str, str | None]) -> None:
        """Show what was chosen before, wherever it is; what is in no list stands in the line."""
        place = self._place
        tab = next((tab for tab in TABS if self._entries.holds(tab, chosen)), None)
        if tab is None:
            tab, place.texts["cache"] = "cache", chosen[0]
        self._show_tab(tab)

    # --- what is highlighted

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        """Another row; one that the person went to is kept for the next time the list is shown."""
        message.stop()
        row, keys = self._table.row, self._place.keys
        if row is not None and (row.key != self._auto or self._place.tab in keys):
            keys[self._place.tab] = row.key
        self._highlighted()

    def _show_problem(self, error: QuantuiError | None) -> None:
        """Below the body; nothing is laid out anew where nothing changes."""
        if error is not self._problem:
            self._problem = error
            self.tell(error)

    def _focus_list(self) -> None:
        (self._facts if self.has_class("-zoom") else self._table).focus()

    def _highlighted(self, *, again: bool = False) -> None:
        """The row with the cursor may be another one; ``again``: look at it also where it is not."""
        raise NotImplementedError

    def _later(self, what: str, seconds: float, act: Callable[[], None]) -> None:
        """Do ``act`` once nothing of the kind was asked for during ``seconds``."""
        self._not_later(what)
        self._waiting[what] = self.set_timer(seconds, act)

    def _not_later(self, *kinds: str) -> None:
        for what in kinds:
            timer = self._waiting.pop(what, None)
            if timer is not None:
                timer.stop()
