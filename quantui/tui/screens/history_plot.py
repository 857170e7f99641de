"""One figure over the runs: a bar each on an axis from 0 that all share, and the value in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantui.domain.formatting import format_seconds
from quantui.domain.run_words import figure_words
from quantui.domain.terminal_text import one_line
from quantui.tui.history_rows import PLOTTED, Plotted, when
from quantui.tui.widgets.key_bar import KeyBar
from quantui.tui.widgets.row_table import Cell, Column, RowTable, fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from quantui.domain.run_summary import RunSummary

_EIGHTHS = " ▏▎▍▌▋▊▉"


class HistoryPlot(ModalScreen[None]):
    """Left and right change the figure; runs that did not measure it are left out."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,p,q,enter", "dismiss", "close", key_display="esc"),
        Binding("right,tab", "other(1)", "next figure", key_display="→"),
        Binding("left,shift+tab", "other(-1)", "figure before", key_display="←"),
    ]
    DEFAULT_CSS = """
    HistoryPlot { align: center middle; }
    HistoryPlot > Vertical {
        width: 95%; max-width: 120; height: 90%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    HistoryPlot #about { height: auto; margin-bottom: 1; }
    """

    def __init__(self, runs: Sequence[RunSummary]) -> None:
        super().__init__()
        self._all = runs
        self._place = next((i for i, one in enumerate(PLOTTED) if shown(runs, one)), 0)

    @property
    def figure(self) -> Plotted:
        """What is plotted."""
        return PLOTTED[self._place]

    def compose(self) -> ComposeResult:
        """What is plotted, then a bar for each run."""
        with Vertical() as box:
            box.border_title = Content("plot")
            yield Static(id="about", markup=False)
            yield RowTable["RunSummary"](
                (
                    Column("begun", 11),
                    Column("run", 10, grows=True),
                    Column("bar", 10, grows=True),
                    Column("value", 14, right=True),
                ),
                self._cells,
            )
        yield KeyBar()

    def on_mount(self) -> None:
        """Draw the first figure that there is."""
        self._draw()

    def on_resize(self) -> None:
        """Bars have another width now."""
        self.query_one(RowTable).refresh()

    def action_other(self, step: int) -> None:
        """Another figure."""
        self._place = (self._place + step) % len(PLOTTED)
        self._draw()

    def _draw(self) -> None:
        figure = self.figure
        runs = shown(self._all, figure)
        self._most = most(runs, figure)
        marks = "; │ is what was predicted" if any(map(figure.predicted, runs)) else ""
        about = f"{figure.name}, the newest first; the axis goes from 0 to {_words(self._most, figure)}{marks}"
        if not runs:
            about = f"{figure.name}: no run measured it"
        here = f"  ({self._place + 1} of {len(PLOTTED)}, ← → for others)"
        self.query_one("#about", Static).update(
            Content.assemble(Content.styled(about, "bold"), Content.styled(here, "$text-muted"))
        )
        self.query_one(RowTable).show(runs, cursor=0)

    def _cells(self, run: RunSummary) -> Sequence[Cell | str]:
        figure = self.figure
        value = figure.value(run) or 0.0
        table = self.query_one(RowTable)
        width = table.width_of("bar")
        text = bar(value, figure.predicted(run), self._most, width)
        name = one_line(f"{run.title} {run.method}")
        return (when(run.started), name, Cell(text, "bar"), _words(value, figure))


def shown(runs: Sequence[RunSummary], figure: Plotted) -> tuple[RunSummary, ...]:
    """The runs that measured ``figure``."""
    return tuple(run for run in runs if figure.value(run) is not None)


def most(runs: Sequence[RunSummary], figure: Plotted) -> float:
    """The end of the axis: the highest value or prediction."""
    values = [figure.value(run) or 0.0 for run in runs]
    values += [figure.predicted(run) or 0.0 for run in runs]
    return max(values, default=0.0)


def bar(value: float, predicted: float | None, end: float, width: int) -> str:
    """``width`` columns from 0 to ``end`` in eighths, with a line where ``predicted`` is.

    A value below 0 (a loss that is a gain) has no bar: its words say it.
    """
    if end <= 0 or width <= 0:
        return ""
    eighths = round(max(0.0, min(1.0, value / end)) * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = fitted("█" * full + (_EIGHTHS[rest] if rest else ""), width)
    if predicted is None:
        return drawn
    place = min(width - 1, int(max(0.0, predicted / end) * width))
    return f"{drawn[:place]}│{drawn[place + 1 :]}"


def _words(value: float, figure: Plotted) -> str:
    return format_seconds(value) if figure.unit == "s" else figure_words(value, figure.unit)
