"""The lists of the Model step: its tabs, the line that narrows them, what is on this machine and what the Hub has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.style import Style
from textual.widgets import Input, Static

from quantui.domain.terminal_text import one_line
from quantui.tui.model_list import (
    MAKE_DEMO,
    TABS,
    TITLES,
    Entries,
    FoundTable,
    ModelPlace,
    names_one,
)
from quantui.tui.model_work import ModelWork
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.fact_sheet import FactSheet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual.timer import Timer
    from textual.widget import Widget

    from quantui.domain.errors import QuantuiError
    from quantui.tui import model_messages as told
    from quantui.tui.widgets.row_table import RowTable

_SEARCH_AFTER_S = 0.5
_SEARCH_FROM = 3
"""Characters after which the Hub is searched without Enter."""


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
        Binding("slash", "find", "find", key_display="/"),
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
    ModelLists.-wide #both { layout: horizontal; }
    ModelLists.-wide #found { width: 56%; height: 100%; }
    ModelLists.-wide #facts { width: 1fr; height: 100%; margin-left: 1; }
    ModelLists.-wide.-zoom #facts { margin-left: 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._work = ModelWork(self.post_message)
        self._entries = Entries()
        self._reading = True
        self._about = 0
        self._cache = ""
        self._auto: tuple[str, str | None] | None = None
        self._waiting: dict[str, Timer] = {}
        self._search_error: QuantuiError | None = None
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
        yield Static(id="tabs", markup=False)
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
        model = loaded.model.id if loaded is not None else answers.model
        if model is not None:
            self._table.chosen = (model, answers.revision)
        self._entries.by_tab["hub"] = self._place.results
        self._show_tab(self._place.tab)
        self._table.focus()
        self._work.browse(self._about)

    def on_unmount(self) -> None:
        """Nothing goes on for a screen that is gone."""
        self._work.close()

    # --- tabs and lists

    def action_tab(self, tab: str) -> None:
        """Show a tab."""
        self._show_tab(tab)
        if tab == "hub" and not self._place.results:
            self._line.focus()
        elif not self._line.has_focus:
            self._focus_list()

    def action_turn(self, by: int) -> None:
        """The tab to the right or to the left."""
        self.action_tab(TABS[(TABS.index(self._place.tab) + by) % len(TABS)])

    def _show_tab(self, tab: str) -> None:
        self._place.tab = tab
        hints = {"hub": "/ searches the Hub by name; owner/name and Enter looks one up"}
        self._line.placeholder = hints.get(
            tab, "/ narrows; a path or owner/name and Enter looks it up"
        )
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
        self.query_one("#empty", Static).update(Content(self._nothing()) if not rows else "")
        self._auto = rows[cursor].key if rows else None
        self._table.show(rows, cursor=cursor)
        self._show_tabs()
        self._highlighted()

    def _offers_demo(self) -> bool:
        text = self._place.texts["folders"].lower()
        made = any(one.place == "demo" for one in self._entries.by_tab["folders"])
        return not self._reading and not made and text in MAKE_DEMO.ref

    def _show_tabs(self) -> None:
        parts: list[Content] = []
        for number, tab in enumerate(TABS, 1):
            here = tab == self._place.tab
            count = len(self._entries.by_tab[tab])
            told = f" {count}" if count or (tab != "hub" and not self._reading) else ""
            text = f"{'▸' if here else ' '}{number} {TITLES[tab]}{told} "
            style = "bold $primary" if here else "$text-muted"
            click = Style.from_meta({"@click": f"screen.tab('{tab}')"})
            parts.append(Content.styled(text, style).stylize(click))
        busy = self._reading or (self._searching and self._place.tab == "hub")
        parts.append(Content(" reading ..." if busy else ""))
        if self._place.mate is not None:
            parts.append(Content.styled(f" + {one_line(self._place.mate.ref)}", "bold"))
        self.query_one("#tabs", Static).update(Content("").join(parts))

    def _nothing(self) -> str:
        """Why the list is empty, and which key helps."""
        tab, text = self._place.tab, self._place.texts[self._place.tab]
        if tab == "hub":
            if self._searching:
                return "Searching the Hub ..."
            if text.strip() and self._place.searched == text.strip():
                return "The Hub has no model and no adapter with this in its name."
            return "Type a part of a name and press Enter."
        if self._reading:
            return "Reading what is on this machine ..."
        if self._entries.by_tab[tab]:
            return "Nothing here matches. Escape clears the line; 3 searches the Hub."
        if tab == "cache":
            return (
                f"The Hub cache at {one_line(self._cache)} holds no models: "
                "press 3 to search the Hub, a to add a folder."
            )
        if tab == "adapters":
            return (
                "No adapters are on this machine: press 3 to search the Hub, a to add a folder, "
                "or / and type the path of one."
            )
        return "No models in the current folder or in those you added: press a to add a folder."

    def action_refresh(self) -> None:
        """Read this machine again, or search again."""
        if self._place.tab == "hub":
            self._place.searched = ""
            self._search()
            return
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
        self._cache = message.cache or self._cache
        self._show_list()

    # --- the line

    def action_find(self) -> None:
        """Type to narrow the list."""
        self.remove_class("-zoom")
        self._line.focus()

    def action_leave_line(self) -> None:
        """From the line to the list."""
        self._focus_list()

    def _focus_list(self) -> None:
        (self._facts if self.has_class("-zoom") else self._table).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow as one types; the Hub is searched when the typing pauses."""
        place = self._place
        place.texts[place.tab] = event.value
        place.keys.pop(place.tab, None)
        if place.tab != "hub":
            self._show_list()
            return
        self._show_list()
        if len(event.value.strip()) >= _SEARCH_FROM:
            self._later("search", _SEARCH_AFTER_S, self._search)

    def on_input_submitted(self) -> None:
        """Search, or look up what was typed, and go to the list."""
        place = self._place
        typed = place.texts[place.tab].strip()
        if place.tab == "hub" and not names_one(typed):
            self._search()
        rows = self._table.rows
        if rows and rows[0].place == "typed":
            self._table.cursor = 0
            self._highlighted()
        if rows or place.tab == "hub":
            self._focus_list()

    def _search(self) -> None:
        place = self._place
        text = place.texts["hub"].strip()
        if not text or (text == place.searched and self._search_error is None):
            return
        place.searched, place.results = text, []
        self._entries.by_tab["hub"] = place.results
        self._searching, self._search_error = True, None
        self.tell(None)
        self._work.search(text)
        self._show_list()

    def on_searched(self, message: told.Searched) -> None:
        """The Hub answered."""
        if message.text != self._place.searched:
            return
        self._place.results += message.found
        self._searching = not message.done
        self._search_error = message.error
        if message.error is not None and self._place.tab == "hub":
            self.tell(message.error)
        self._show_list()

    # --- what is highlighted

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        """Another row; one that the person went to is kept for the next time the list is shown."""
        message.stop()
        row, keys = self._table.row, self._place.keys
        if row is not None and (row.key != self._auto or self._place.tab in keys):
            keys[self._place.tab] = row.key
        self._highlighted()

    def _highlighted(self) -> None:
        """The row with the cursor may be another one."""
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
