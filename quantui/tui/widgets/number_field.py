"""A field for a number: what it cannot take is told at once, up and down step by powers of two, empty: the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events

_TAKEN = frozenset("0123456789kKmM_.")


class NumberField(Input):
    """An input of one line. Keys that no number has go to the screen: `w` and `q` work here too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,plus", "step(1)", "double", show=False),
        Binding("down,minus", "step(-1)", "halve", show=False),
        Binding("enter", "screen.next", "next"),
    ]
    DEFAULT_CSS = """
    NumberField { width: 22; }
    NumberField > .input--placeholder { color: $text-muted; }
    """

    class Told(Message):
        """The value changed; ``error`` says why it cannot be taken."""

        def __init__(self, field: NumberField, error: QuantuiError | None) -> None:
            self.field = field
            self.error = error
            super().__init__()

    def __init__(self, read: Callable[[str], int], *, most: int, id: str) -> None:
        """``read`` makes a number of a text or raises QuantuiError; ``most`` is the highest step."""
        super().__init__(compact=True, id=id, select_on_focus=False)
        self._read = read
        self._most = most
        self._default = 1

    def offer(self, default: int, typed: int | None) -> None:
        """Show what was typed, or nothing above the greyed ``default``."""
        self._default = default
        self.placeholder = f"{default} (default)"
        self.value = "" if typed is None else str(typed)

    @property
    def number(self) -> int | None:
        """What was typed; None: nothing, or nothing that can be taken."""
        return None if self.error is not None or not self.value.strip() else self._read(self.value)

    @property
    def error(self) -> QuantuiError | None:
        """Why the text cannot be taken; None when it can, or is empty."""
        if not self.value.strip():
            return None
        try:
            self._read(self.value)
        except QuantuiError as error:
            return error
        return None

    def watch_value(self) -> None:
        """Tell at once what is wrong."""
        self.post_message(self.Told(self, self.error))

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Only what a number is written with."""
        del key
        return character in _TAKEN

    async def _on_key(self, event: events.Key) -> None:
        # Textual calls every class's handler: Input's own would type the letter.
        if event.is_printable and event.character not in _TAKEN:
            event.prevent_default()

    def action_step(self, direction: int) -> None:
        """To the next power of two above or below."""
        if self.error is not None:
            return
        now = self.number or self._default
        below = 1 << (now.bit_length() - 1)
        lower = below if now > below else max(below // 2, 1)
        stepped = below * 2 if direction > 0 else lower
        self.value = str(min(stepped, self._most))
        self.cursor_position = len(self.value)
