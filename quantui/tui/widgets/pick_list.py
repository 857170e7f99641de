"""A list to pick one thing from: arrows move, digits jump, Enter goes on to the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import OptionList

if TYPE_CHECKING:
    from textual import events


class PickList(OptionList):
    """An OptionList whose Enter is the screen's ``next``; what is highlighted is what is picked.

    Options are made with ``Content`` or ``Text``: a plain string would be read as markup.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.next", "next")]

    def on_key(self, event: events.Key) -> None:
        """1 to 9 highlight that option, 0 the tenth; a disabled one only when it may be looked at."""
        if event.character is None or not event.character.isdigit():
            return
        place = (int(event.character) or 10) - 1
        if place < self.option_count:
            event.stop()
            self.highlighted = place
            self.scroll_to_highlight()
