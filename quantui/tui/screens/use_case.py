"""The Use case step: what the model is wanted for, how long its context and how many users at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static
from textual.widgets.option_list import Option

from quantui.domain.choosing.use_cases import DEFAULT_USE_CASE, use_cases
from quantui.domain.errors import QuantuiError
from quantui.domain.quantities import MOST_TOKENS, MOST_USERS, count, tokens
from quantui.tui.screens.step import StepScreen
from quantui.tui.use_case_words import summary, told, why_rows
from quantui.tui.widgets.details_pane import READ_ON, DetailsPane
from quantui.tui.widgets.number_field import NumberField
from quantui.tui.widgets.pick_list import PickList

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget
    from textual.widgets import OptionList

    from quantui.domain.choosing.use_cases import UseCase
    from quantui.domain.explained_row import Row

_FINE_TUNE = "serve-finetune"
_WHY_RECOMMENDED = {
    _FINE_TUNE: "an adapter was picked.",
    DEFAULT_USE_CASE: "it suits most, and nothing picked so far says otherwise.",
}


class UseCaseScreen(StepScreen):
    """The uses above, the two numbers below them, and what counts in the highlighted use."""

    NAME = "use_case"
    HELP = (
        "What the model is wanted for decides how ways to hold its weights are ranked: each use weighs speed, quality, "
        "memory and work differently, and w shows how. Tab goes to the context length (tokens of one request, its "
        "answer included) and to the number of users at the same time; an empty field takes the use's default, up and "
        "down step by powers of two, and 32K is 32768."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "numbers"),
        *READ_ON,
    ]
    DEFAULT_CSS = """
    UseCaseScreen {
        #uses { text-wrap: nowrap; text-overflow: ellipsis; height: auto; max-height: 60%; scrollbar-size-vertical: 1; }
        #uses > .option-list--option { padding: 0; }
        #numbers { height: auto; margin-top: 1; }
        #numbers Horizontal { height: 1; }
        #numbers Label, #numbers Static { width: auto; }
        #numbers .label { width: 16; }
        #numbers .about { color: $text-muted; padding-left: 1; width: 1fr; }
        #numbers .-bad { color: $text-error; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._uses = tuple(use_cases().values())
        self._typed: dict[str, tuple[int | None, int | None]] = {}

    def compose_body(self) -> Iterable[Widget]:
        """The uses, the numbers, and what counts."""
        yield PickList(id="uses")
        with VerticalScroll(id="numbers", can_focus=False):
            for name, label, field in (
                (
                    "context",
                    "context length",
                    NumberField(_context, most=MOST_TOKENS, id="context"),
                ),
                ("users", "users at once", NumberField(_users, most=MOST_USERS, id="users")),
            ):
                with Horizontal():
                    yield Static(label, classes="label", markup=False)
                    yield field
                    yield Static(id=f"{name}-about", classes="about", markup=False)
        yield DetailsPane(id="counts")

    def on_mount(self) -> None:
        """The answered use is highlighted, at first the recommended one."""
        self.title = "Use case"
        answers, places = self.session.answers, self.session.places
        kept: dict[str, Any] = places.setdefault(self.NAME, {"typed": {}, "answered": False})
        self._typed = kept["typed"]
        chosen = answers.use_case if kept["answered"] else self.recommended
        if kept["answered"]:
            self._typed[chosen] = (answers.context, answers.users)
        uses = self.query_one("#uses", PickList)
        uses.add_options(self._options())
        uses.highlighted = [use.name for use in self._uses].index(chosen)
        uses.focus()
        self._offer()

    @property
    def recommended(self) -> str:
        """The use that is highlighted before anything was answered."""
        return _FINE_TUNE if self.session.answers.adapter is not None else DEFAULT_USE_CASE

    @property
    def chosen(self) -> UseCase:
        """The highlighted use."""
        return self._uses[self.query_one("#uses", PickList).highlighted or 0]

    def ready(self) -> bool:
        """Both numbers have to be such."""
        return all(field.error is None for field in self.query(NumberField))

    def why(self) -> Sequence[Row]:
        """What counts how much in the highlighted use, and whose word it is."""
        return why_rows(self.chosen)

    def leave(self) -> None:
        """Answer with what is seen; numbers typed for another use do not come along."""
        use = self.chosen
        context, users = self._typed.get(use.name, (None, None))
        changes: dict[str, Any] = {"use_case": use.name}
        same = use.name == self.session.answers.use_case
        changes |= {"context": context} if same or context is not None else {}
        changes |= {"users": users} if same or users is not None else {}
        self.session.places[self.NAME]["answered"] = True
        self.tell_cleared(self.session.answer(**changes))

    def action_back(self) -> None:
        """Going back keeps what was chosen here."""
        if self.ready():
            self.leave()
        super().action_back()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is always a reason to be told, and it need not be made to know that."""
        return True if action == "why" else super().check_action(action, parameters)

    def action_read_on(self, pages: int) -> None:
        """Read on in what counts without leaving the list."""
        self.query_one(DetailsPane).turn(pages)

    # --- what is typed and highlighted

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Another use: its own numbers, typed earlier or by default."""
        event.stop()
        self._offer()

    def on_number_field_told(self, message: NumberField.Told) -> None:
        """Keep what can be taken, say what cannot."""
        message.stop()
        field, error = message.field, message.error
        about = self.query_one(f"#{field.id}-about", Static)
        about.set_class(error is not None, "-bad")
        self.tell(error)
        if error is not None:
            about.update(Content(f"✗ {field.value[:12]} is not such a number"))
        else:
            about.update(self._about(str(field.id), field.number))
            self._typed[self.chosen.name] = (
                self.query_one("#context", NumberField).number,
                self.query_one("#users", NumberField).number,
            )
        self.refresh_bindings()

    def _offer(self) -> None:
        use = self.chosen
        context, users = self._typed.get(use.name, (None, None))
        with self.prevent(NumberField.Told):
            self.query_one("#context", NumberField).offer(use.context, context)
            self.query_one("#users", NumberField).offer(use.users, users)
        self.tell(None)
        for name, number in (("context", context), ("users", users)):
            about = self.query_one(f"#{name}-about", Static)
            about.remove_class("-bad")
            about.update(self._about(name, number))
        self._draw_told()
        self.refresh_bindings()

    def _draw_told(self) -> None:
        use = self.chosen
        why = _WHY_RECOMMENDED[use.name] if use.name == self.recommended else ""
        self.query_one(DetailsPane).tell(use.name, told(use, why))

    def _about(self, field: str, number: int | None) -> Content:
        """What the number counts; what was typed as 32K is told in full, and what a known model cannot do."""
        typed = "" if number is None else f"{number} "
        if field == "users":
            return Content(f"{typed}request{'' if number == 1 else 's'} at the same time")
        subject = self.session.subject
        limit = subject.model.context_length if subject is not None else None
        if limit is not None and (number or self.chosen.context) > limit:
            return Content(f"! the model's own limit is {limit}")
        return Content(f"{typed}tokens of one request, with its answer")

    def _options(self) -> list[Option]:
        recommended = self.recommended
        return [
            Option(summary(use, place % 10, recommended=use.name == recommended), id=use.name)
            for place, use in enumerate(self._uses, 1)
        ]


def _context(text: str) -> int:
    """Tokens; raises QuantuiError in the words of a field."""
    try:
        return tokens("The context length", text)
    except QuantuiError as error:
        raise _worded(error, "For example 8192, or 32K for 32768; empty is the default.") from None


def _users(text: str) -> int:
    """Users; raises QuantuiError in the words of a field."""
    try:
        return count("The number of users", text, "users")
    except QuantuiError as error:
        raise _worded(error, "For example 4; empty is the default.") from None


def _worded(error: QuantuiError, fix: str) -> QuantuiError:
    return QuantuiError(error.code, error.what, error.why, fix, error.exit_code)
