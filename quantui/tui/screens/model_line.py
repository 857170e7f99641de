"""The line of the Model step: it narrows the list, searches the Hub, or names a model that is in no list."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from quantui.tui.model_list import names_one
from quantui.tui.screens.model_lists import ModelLists

if TYPE_CHECKING:
    from textual.widgets import Input

    from quantui.tui import model_messages as told

_SEARCH_AFTER_S = 0.5
_SEARCH_FROM = 3
"""Characters after which the Hub is searched without Enter."""


class ModelLine(ModelLists):
    """Typing in it changes the list below at once; the Hub is asked when the typing pauses."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "type", key_display="/", show=False),
    ]

    def action_find(self) -> None:
        """Type to narrow the list."""
        self.remove_class("-zoom")
        # At once: what is typed next belongs there.
        self.set_focus(self._line)

    def action_leave_line(self) -> None:
        """From the line to the list."""
        self._focus_list()

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
            self._highlighted(again=True)
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
        self._show_problem(None)
        self._work.search(text)
        self._show_list()

    def on_searched(self, message: told.Searched) -> None:
        """The Hub answered."""
        if message.text != self._place.searched:
            return
        known = {one.key for one in self._place.results}
        self._place.results += [one for one in message.found if one.key not in known]
        self._searching = not message.done
        self._search_error = message.error
        if message.error is not None and self._place.tab == "hub":
            self._show_problem(message.error)
        self._show_list()

    def action_refresh(self) -> None:
        """Search again, or read this machine again."""
        if self._place.tab != "hub":
            super().action_refresh()
            return
        self._place.searched = ""
        self._search()
