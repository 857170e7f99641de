"""The ranked table of methods: choices first, the refused below with their reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantui.domain.answers import best_from_here, key_of, why_not_from_here
from quantui.tui import method_rows
from quantui.tui.widgets.pick_list import PickList

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult

    from quantui.domain.choosing.recommendation import Choice, Recommendation, Refusal


class MethodTable(Vertical):
    """Shows one recommendation after the other; the highlight stays where the person put it.

    Refused methods may be highlighted too, to read why: whether one can be picked is for the screen to say.
    """

    DEFAULT_CSS = """
    MethodTable { height: 1fr; min-height: 5; }
    MethodTable #head { height: 1; }
    MethodTable PickList { height: 1fr; text-wrap: nowrap; }
    MethodTable PickList > .option-list--option-highlighted,
    MethodTable PickList:focus > .option-list--option-highlighted {
        background: $primary 30%;
        color: $foreground;
        text-style: bold;
    }
    """

    class Highlighted(Message):
        """Another row is highlighted; ``by_hand``: a person moved there."""

        def __init__(self, *, by_hand: bool) -> None:
            self.by_hand = by_hand
            super().__init__()

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.only_able = False
        self._found: Recommendation | None = None
        self._ram: int | None = None
        self._answered: str | None = None
        self._at = ""
        self._moved = False

    def compose(self) -> ComposeResult:
        """The names of the columns stay when the rows scroll."""
        yield Static(id="head", markup=False)
        yield PickList(id="methods", markup=False)

    @property
    def rows(self) -> PickList:
        """The list itself: what has the focus."""
        return self.query_one(PickList)

    @property
    def row(self) -> Choice | Refusal | None:
        """The highlighted choice or refusal."""
        option = self.rows.highlighted_option
        if self._found is None or option is None or option.id is None:
            return None
        kind, _, name = option.id.partition(":")
        if kind == "choice":
            return next((one for one in self._found.choices if key_of(one) == name), None)
        return next((one for one in self._found.refused if one.method == name), None)

    def show(self, found: Recommendation, *, ram_total: int | None, answered: str | None) -> None:
        """Draw ``found``; ``answered``: the key of the choice that was picked before. Bytes of RAM, where known."""
        self._found, self._ram, self._answered = found, ram_total, answered
        self.draw()

    def draw(self) -> None:
        """Draw the rows anew, for the width there is."""
        if self._found is None:
            return
        rows = self.rows
        self._notice_moves(rows.highlighted_option)
        width = max(40, rows.scrollable_content_region.width)
        self.query_one("#head", Static).update(method_rows.table_head(width))
        scrolled = rows.scroll_y
        rows.set_options(self._options(self._found, width))
        places = {option.id: place for place, option in enumerate(rows.options)}
        wanted = (places[one] for one in self._wanted(self._found) if one in places)
        able = (place for place, option in enumerate(rows.options) if not option.disabled)
        place = next(wanted, next(able, None))
        if place is not None:
            self._at = rows.options[place].id or ""
            rows.scroll_to(y=scrolled, animate=False)
            rows.highlighted = place

    def _options(self, found: Recommendation, width: int) -> Iterable[Option]:
        for choice in found.choices:
            if not self.only_able or not why_not_from_here(choice):
                row = method_rows.choice_row(choice, width, self._ram)
                yield Option(row, id=f"choice:{key_of(choice)}")
        if self.only_able:
            return
        for heading, refused in method_rows.refused_groups(found.refused):
            line = method_rows.group_row(heading, width)
            yield Option(line, id=f"group:{heading}", disabled=True)
            for one in refused:
                yield Option(method_rows.refusal_row(one, width), id=f"refused:{one.method}")

    def _wanted(self, found: Recommendation) -> Iterable[str]:
        """The row to highlight, best first: where the person is, what was picked before, what is best here."""
        if self._moved:
            name = self._at.partition(":")[2]
            yield from (f"choice:{name}", f"refused:{name.partition('=')[0]}")
        if self._answered is not None:
            yield f"choice:{self._answered}"
        best = best_from_here(found)
        if best is not None:
            yield f"choice:{key_of(best)}"
        if found.nearest is not None:
            yield f"refused:{found.nearest.method}"

    def _notice_moves(self, option: Option | None) -> bool:
        """Whether a person has moved the highlight to ``option`` since the rows were drawn."""
        if option is None or option.id is None or option.id == self._at:
            return False
        self._at, self._moved = option.id, True
        return True

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        moved = self._notice_moves(self.rows.highlighted_option)
        self.post_message(self.Highlighted(by_hand=moved))
