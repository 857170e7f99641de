"""What every step has: the rail, a body, the keys, the way on and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen

from quantui.tui.bugs import TellsBugs
from quantui.tui.steps import after, before
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.problem import Problem
from quantui.tui.widgets.rail import Rail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.widget import Widget

    from quantui.domain.errors import QuantuiError
    from quantui.domain.explained_row import Row
    from quantui.tui.app import QuantuiApp
    from quantui.tui.session import Session


class StepScreen(TellsBugs, Screen[None]):
    """A step of the wizard. Screens are made afresh each time they are shown: what lasts is in the session.

    A subclass gives :attr:`NAME`, :meth:`compose_body`, and as it needs :meth:`ready` (may the person go on?),
    :meth:`leave` (take the answers over), :meth:`why` and the ``*_changed`` hooks.
    """

    NAME: ClassVar[str]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "next", "next", priority=False),
        Binding("escape", "back", "back"),
        Binding("w", "why", "why"),
    ]
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012
        (0, "-narrow"),
        (100, "-wide"),
    ]
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    DEFAULT_CSS = """
    StepScreen #body { height: 1fr; padding: 0 1; }
    StepScreen.-wide #body { padding: 1 2; }
    """

    _told_of_run: tuple[str, str] | None = None

    @property
    def wizard(self) -> QuantuiApp:
        """The app, by its type."""
        return cast("QuantuiApp", self.app)

    @property
    def session(self) -> Session:
        """What the wizard knows."""
        return self.wizard.session

    def compose(self) -> ComposeResult:
        """Rail, body, an error if there is one, keys."""
        yield Rail(self.NAME, self.session)
        with Vertical(id="body"):
            yield from self.compose_body()
        yield Problem(id="problem", markup=False)
        yield KeyBar()

    def compose_body(self) -> Iterable[Widget]:
        """The step's own widgets."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey what cannot be used: going on before the step is answered, asking why where nothing is to be told."""
        del parameters
        if action == "next":
            return True if self.ready() else None
        if action == "back":
            return True if before(self.NAME) is not None else None
        if action == "why":
            return True if self.why() else None
        return True

    def ready(self) -> bool:
        """Whether the step is answered, so that Enter goes on."""
        return True

    def leave(self) -> None:
        """Take over what was answered, before the next step is shown."""

    def why(self) -> Sequence[Row]:
        """The rows of the panel that `w` opens: numbers, assumptions, sources. Empty: there is none."""
        return ()

    def action_next(self) -> None:
        """Go on to the next step."""
        if not self.ready():
            return
        self.leave()
        following = after(self.NAME)
        if following is not None:
            self.wizard.go(following)

    def action_back(self) -> None:
        """Go back to the step before; answers are kept."""
        previous = before(self.NAME)
        if previous is not None:
            self.wizard.go(previous)

    def action_why(self) -> None:
        """Open the panel of numbers and sources."""
        from quantui.tui.screens.why import Why

        rows = self.why()
        if rows:
            self.app.push_screen(Why(self.title or self.NAME, rows))

    def tell(self, error: QuantuiError | None) -> None:
        """Show an error below the body, or take it away."""
        self.query_one("#problem", Problem).tell(error)

    def tell_cleared(self, cleared: Sequence[str]) -> None:
        """Say what a changed answer cleared."""
        if cleared:
            self.notify(f"Cleared: {', '.join(cleared)}.", markup=False)

    def update_rail(self) -> None:
        """Draw the rail and the keys again."""
        self.query_one(Rail).refresh()
        self.refresh_bindings()

    def hardware_changed(self) -> None:
        """The machine was read, or engines were listed."""
        self.update_rail()

    def background_changed(self) -> None:
        """Runs that live without this wizard were counted."""

    def run_changed(self) -> None:
        """Something happened in the run; ten times a second nothing that the rail tells."""
        told = self.session.chosen("run"), self.session.chosen("ready")
        if told != self._told_of_run:
            self._told_of_run = told
            self.update_rail()
