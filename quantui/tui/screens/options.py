"""Advanced options: everything a profile can hold, with its meaning and limits, set where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from quantui.domain.errors import QuantuiError
from quantui.tui.option_rows import (
    OptionRow,
    check_value,
    edited_text,
    matches,
    option_rows,
    read_value,
    type_words,
)
from quantui.tui.option_words import about_content, option_line
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual import events
    from textual.app import ComposeResult

    from quantui.tui.app import QuantuiApp
    from quantui.tui.session import Session


class _Options(OptionList):
    """The list; Enter is the screen's."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.edit", "set")]


class _Line(Input):
    """The line that a value is typed in."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "take it")]


class OptionsScreen(ModalScreen[bool]):
    """Gives whether anything was changed; the changes are in the session at once."""

    HELP = (
        "Every option that a profile can hold, with its meaning, limits and default. * was set by hand, + differs from "
        "the default, = is chosen in a step of its own. What is set here is checked as a profile is."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "edit", "set"),
        Binding("u", "unset", "unset"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("m", "only_changed", "changed only"),
        Binding("escape", "leave", "done"),
        Binding("question_mark", "app.help", "help", key_display="?"),
    ]
    DEFAULT_CSS = """
    OptionsScreen { align: center middle; }
    OptionsScreen > Vertical {
        width: 100%; max-width: 110; height: 1fr;
        border: round $primary; padding: 0 1; background: $surface;
    }
    OptionsScreen Input { height: 1; border: none; padding: 0; background: $boost; }
    OptionsScreen Input:focus { border: none; background: $panel; }
    OptionsScreen #list { height: 1fr; min-height: 4; }
    OptionsScreen #about { height: auto; min-height: 3; max-height: 7; margin-top: 1; }
    OptionsScreen #value { display: none; }
    OptionsScreen #value.-there { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[OptionRow, ...] = ()
        self._editing: OptionRow | None = None
        self._only_changed = False
        self._changed = False

    @property
    def session(self) -> Session:
        """What the wizard knows."""
        return cast("QuantuiApp", self.app).session

    def compose(self) -> ComposeResult:
        """The filter, the options, what the highlighted one means, and a line to type in."""
        with Vertical() as box:
            box.border_title = "options of the profile"
            yield Input(placeholder="filter: words of names and meanings", id="filter")
            yield _Options(id="list", markup=False)
            yield Static(id="about", markup=False)
            yield _Line(id="value", select_on_focus=False)
            yield Problem(id="problem", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        """Show them all."""
        self._draw()
        self.options.focus()

    def on_resize(self, event: events.Resize) -> None:
        """Columns follow the width."""
        del event
        self.call_after_refresh(self._draw)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a value is typed, there is nothing else to do but to take it or to leave it."""
        del parameters
        if action in ("unset", "filter", "only_changed"):
            return self._editing is None
        return True

    @property
    def options(self) -> OptionList:
        """The list."""
        return self.query_one("#list", OptionList)

    @property
    def row(self) -> OptionRow | None:
        """The highlighted option."""
        option = self.options.highlighted_option
        return next((row for row in self._rows if option and row.path == option.id), None)

    # --- drawing

    def _draw(self) -> None:
        draft = self.session.draft
        if draft is None:
            return
        self._rows = option_rows(draft, self.session.answers.options)
        options = self.options
        before = options.highlighted_option
        kept, scrolled = before.id if before else None, options.scroll_y
        options.set_options(self._lines(max(40, options.scrollable_content_region.width)))
        places = [n for n, one in enumerate(options.options) if not one.disabled]
        at = next((n for n in places if options.options[n].id == kept), None)
        words = self.query_one("#filter", Input).value.lower()
        named = (n for n in places if words and words in (options.options[n].id or ""))
        first = next(named, next(iter(places), None))
        options.highlighted = first if at is None or words else at
        if at is not None:
            options.scroll_to(y=scrolled, animate=False)
        self._tell_about()

    def _lines(self, width: int) -> Iterable[Option]:
        words = self.query_one("#filter", Input).value
        section = ""
        for row in self._rows:
            if not matches(row, words) or (self._only_changed and not row.changed):
                continue
            if row.section != section:
                section = row.section
                heading = f"── {section} ".ljust(width, "─")[:width]
                yield Option(
                    Content.styled(heading, "$text-muted"), id=f"# {section}", disabled=True
                )
            yield Option(option_line(row, width), id=row.path)

    def _tell_about(self) -> None:
        row = self.row
        about = self.query_one("#about", Static)
        if row is None:
            about.update(Content("No option has these words."))
            return
        about.update(about_content(row))

    def _tell(self, error: QuantuiError | None) -> None:
        self.query_one(Problem).tell(error)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self._editing is None:
            self._tell(None)
        self._tell_about()

    # --- setting

    def action_edit(self) -> None:
        """The next value where there are a few; else a line to type in."""
        row, draft = self.row, self.session.draft
        if row is None or draft is None or self._editing is not None:
            return
        if row.locked:
            self.notify(f"{row.path} is chosen in {row.locked}.", markup=False)
            return
        if row.choices:
            at = row.choices.index(row.value) if row.value in row.choices else -1
            value = row.choices[(at + 1) % len(row.choices)]
            error = check_value(draft, row, value)
            self._tell(error)
            if error is None:
                self._set(row, value)
            return
        self._editing = row
        self.refresh_bindings()
        line = self.query_one("#value", Input)
        line.placeholder = type_words(row)
        line.value = edited_text(row)
        line.add_class("-there")
        line.focus()
        line.action_end()
        # The line takes a row of the list, perhaps the highlighted one.
        self.call_after_refresh(self.options.scroll_to_highlight)

    @on(Input.Submitted, "#value")
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        row, draft = self._editing, self.session.draft
        if row is None or draft is None:
            return
        try:
            value = read_value(draft, row, event.value)
        except QuantuiError as error:
            self._tell(error)
            return
        self._stop_editing()
        self._set(row, value)

    def _set(self, row: OptionRow, value: object) -> None:
        """None takes a value away: what was set by hand, or what an opened profile holds."""
        session = self.session
        if value is None and session.loaded is not None:
            session.loaded = session.loaded.with_option(row.section, row.name, row.default)
        session.set_option(row.section, row.name, value)
        self._changed = True
        self._draw()

    def action_unset(self) -> None:
        """Back to what follows from the answers, or to the default."""
        row = self.row
        if row is None or row.locked or self._editing is not None:
            return
        if row.by_hand or (row.changed and self.session.loaded is not None):
            self._tell(None)
            self._set(row, None)

    def _stop_editing(self) -> None:
        self._editing = None
        self.refresh_bindings()
        self.query_one("#value").remove_class("-there")
        self._tell(None)
        self.options.focus()

    # --- finding

    def action_filter(self) -> None:
        """Type words to find an option by."""
        # At once: what is typed next belongs there.
        self.set_focus(self.query_one("#filter"))

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        event.stop()
        self._draw()

    @on(Input.Submitted, "#filter")
    def _found(self, event: Input.Submitted) -> None:
        event.stop()
        self.options.focus()

    def on_key(self, event: events.Key) -> None:
        """Down leaves the filter for the list."""
        if event.key == "down" and self.query_one("#filter").has_focus:
            event.stop()
            self.options.focus()

    def action_only_changed(self) -> None:
        """Only what is not at its default, or all."""
        self._only_changed = not self._only_changed
        self._draw()

    def action_leave(self) -> None:
        """Out of the line that is typed in, then out of a filter, then back to the plan."""
        line = self.query_one("#filter", Input)
        if self._editing is not None:
            self._stop_editing()
        elif line.value or line.has_focus:
            line.value = ""
            self.options.focus()
        else:
            self.dismiss(self._changed)
