"""A question with a few answers, each a key; the safe one has the focus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult


@dataclass(frozen=True)
class Reply:
    """One answer: what it gives, the key that picks it, its words."""

    value: str
    key: str
    words: str


class Ask(ModalScreen[str | None]):
    """Gives the value of the reply, None when it was left with Escape. The first reply has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "cancel")]
    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask > Vertical {
        width: 72; max-width: 95%; height: auto; max-height: 90%;
        border: round $warning; padding: 1 2; background: $surface;
    }
    Ask Static { height: auto; margin-bottom: 1; }
    Ask OptionList { height: auto; border: none; padding: 0; background: $surface; }
    """

    def __init__(self, title: str, body: str, replies: Sequence[Reply]) -> None:
        super().__init__()
        self._title = title
        self._body = body
        self._replies = tuple(replies)

    def compose(self) -> ComposeResult:
        """The question, then its answers."""
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield Static(Content(self._body), markup=False)
            yield OptionList(
                *(
                    Option(Content(f"{reply.key}  {reply.words}"), id=reply.value)
                    for reply in self._replies
                )
            )

    def on_mount(self) -> None:
        """The first reply is the safe one."""
        replies = self.query_one(OptionList)
        replies.highlighted = 0
        replies.focus()

    def on_key(self, event: events.Key) -> None:
        """A reply's own key picks it at once."""
        for reply in self._replies:
            if event.character == reply.key:
                event.stop()
                self.dismiss(reply.value)
                return

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter picks the highlighted reply."""
        self.dismiss(event.option.id)
