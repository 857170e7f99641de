"""Pick an adapter to go with a model: those that name it as their base first, others with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.domain.adapter_bases import why_not_for
from quantui.domain.found import Found
from quantui.domain.terminal_text import one_line
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.row_table import Cell, Column, RowTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

NONE = Found("adapter", "typed", "")
"""The row that takes the adapter away."""

_COLUMNS = (Column("adapter", 24, grows=True), Column("", 26, grows=True))


class PickAdapter(ModalScreen["Found | None"]):
    """Gives the adapter, :data:`NONE` for none, None when it was left with Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,x,space", "pick", "take it"),
        Binding("escape", "dismiss(None)", "cancel"),
    ]
    DEFAULT_CSS = """
    PickAdapter { align: center middle; }
    PickAdapter > Vertical {
        width: 96; max-width: 95%; height: 20; max-height: 90%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    PickAdapter Static { height: auto; }
    """

    def __init__(self, model: Found, adapters: Sequence[Found], picked: Found | None) -> None:
        super().__init__()
        self._model = model
        names = (model.ref, model.path)
        reasons = {one.key: why_not_for(one.base, *names) for one in adapters}
        usable = [one for one in adapters if not one.problem]
        suited = [one for one in usable if not reasons[one.key]]
        others = [one for one in usable if reasons[one.key]]
        self._reasons = reasons
        self._rows = [*suited, *others]
        if picked is not None:
            self._rows = [NONE, *self._rows]
        self._suited = len(suited)

    def compose(self) -> ComposeResult:
        """What for, and the adapters."""
        with Vertical() as box:
            box.border_title = Content("an adapter to go with it")
            yield Static(Content(one_line(self._model.ref)), markup=False)
            yield Static(Content.styled(self._told(), "$text-muted"), markup=False)
            yield RowTable(_COLUMNS, self._line)
        yield KeyBar()

    def _told(self) -> str:
        if not self._rows:
            return "No adapters are on this machine: look for one under 3 Hub search, or type its path."
        if not self._suited:
            return (
                "None names this model as its base; whether one fits is checked when it is taken."
            )
        return f"{self._suited} name{'s' if self._suited == 1 else ''} this model as base, by name."

    def on_mount(self) -> None:
        """The likeliest has the cursor."""
        table = self.query_one(RowTable)
        first = 1 if self._rows[:1] == [NONE] and len(self._rows) > 1 else 0
        table.show(self._rows, cursor=first)
        table.focus()

    def _line(self, found: Found) -> tuple[Cell, Cell]:
        if found is NONE:
            return Cell("no adapter", "strong"), Cell("the model alone", "muted")
        reason = self._reasons[found.key]
        return Cell(found.ref), Cell(reason or "✓ its base", "muted" if reason else "good")

    def action_pick(self) -> None:
        """Give what has the cursor."""
        row = self.query_one(RowTable).row
        self.dismiss(replace(row) if row is not None and row is not NONE else row)
