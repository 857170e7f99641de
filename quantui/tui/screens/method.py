"""Method: what to serve the model as, ranked for this machine, with what each choice takes and costs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from quantui.domain.answers import key_of, why_not_from_here
from quantui.domain.choosing.recommendation import Choice
from quantui.domain.errors import QuantuiError
from quantui.tui.ranking import (
    answers_now,
    known_ranking,
    known_subject,
    ranked,
    reranked,
    wanted_of,
    with_ladder,
)
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.method_detail import MethodDetail
from quantui.tui.widgets.method_table import MethodTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual import events
    from textual.widget import Widget

    from quantui.domain.choosing.context_ladder import ContextLadder
    from quantui.domain.explained_row import Row
    from quantui.tui.ranking import Ranking

MOST_USERS = 4096
SETTLES_S = 0.05
"""Keys that repeat are ranked for once."""


class MethodScreen(StepScreen):
    """Ranked choices, then the refused with their reasons; below, the highlighted one on this machine's memory."""

    NAME = "method"
    TITLE = "method"
    HELP = (
        "Every way to hold the model's weights, the best for your use first, then those that do not work here with the "
        "reason: they can be read, not picked. GiB: weights on each device. longest: the longest context for so many "
        "users. tok/s: for each user. loss%: of quality against 16 bit. first: what has to be done before serving. "
        "The bar is the device's memory; K is what the asked requests take of the cache, k what is left of it. "
        "In the ladder ✓ fits, ~ fits not for sure or only so many of the users at once, ✗ does not fit."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign,right", "context(1)", "context", key_display="+-"),
        Binding("minus,left", "context(-1)", "shorter context", show=False),
        Binding("right_square_bracket", "users(1)", "users", key_display="[]"),
        Binding("left_square_bracket", "users(-1)", "fewer users", show=False),
        Binding("v", "only_able", "only what works here", show=False),
        Binding("r", "again", "look again, on the Hub too", show=False),
    ]
    DEFAULT_CSS = """
    MethodScreen #looking { height: auto; color: $text-muted; display: none; }
    MethodScreen #looking.-there { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._ladder: ContextLadder | None = None
        self._going = False

    def compose_body(self) -> Iterable[Widget]:
        """The table, the highlighted row in full, and what is being looked up."""
        yield MethodTable()
        yield MethodDetail()
        yield Static("", id="looking", markup=False)

    def on_mount(self) -> None:
        """Show what is known; look up what is not."""
        self.table.rows.focus()
        self._begin()

    def hardware_changed(self) -> None:
        """The machine was read again: what was ranked for the old one is made anew."""
        super().hardware_changed()
        if self.session.recommended is None:
            self._begin()

    def on_resize(self, event: events.Resize) -> None:
        """Columns follow the width."""
        del event
        self.call_after_refresh(self._draw)

    @property
    def table(self) -> MethodTable:
        """The ranked rows."""
        return self.query_one(MethodTable)

    @property
    def asked(self) -> tuple[int, int]:
        """Context in tokens and users at once, as they are asked for now: perhaps not ranked for yet."""
        known, answers = self.session.recommended, answers_now(self.session)
        if known is None:
            return answers.context or 0, answers.users or 1
        found = known.recommendation
        return answers.context or found.context, answers.users or found.users

    @property
    def stale(self) -> bool:
        """Whether what is shown was ranked for another context or other users."""
        known = self.session.recommended
        if known is None:
            return True
        return self.asked != (known.recommendation.context, known.recommendation.users)

    # --- looking up, and ranking anew

    def _begin(self) -> None:
        if self.session.hardware is None:
            self._say("The machine is being read…")
            return
        self._look()

    @work(group="method", exclusive=True)
    async def _look(self) -> None:
        """Rank what is known without the network, then again with what the Hub has."""
        wanted, session = wanted_of(self.session), self.session
        if wanted is None:
            self._say("No model is chosen: Esc goes back to the model.")
            return
        try:
            known = session.recommended = known_ranking(session)
            if known is None:
                self._say("Looking at the model and at what fits…")
                subject = known_subject(session)
                self._take(await asyncio.to_thread(ranked, wanted, subject, offline=True))
            else:
                self._take(await asyncio.to_thread(with_ladder, known))
            if not wanted.same_search(session.places.get("method.searched")):
                self._say("Looking for quantized copies on the Hub…")
                found = await asyncio.to_thread(ranked, wanted, session.subject, offline=None)
                session.places["method.searched"] = wanted
                self._take(found)
        except QuantuiError as error:
            self.tell(error)
        self._say("")

    def _take(self, found: Ranking) -> None:
        """Show a ranking, and make the next one if the person has asked for another context meanwhile."""
        self.session.recommended, self._ladder = found.recommended, found.ladder
        self.session.subject = found.recommended.subject
        self.tell(None)
        self._draw()
        if self.stale:
            self._rank_again()
        elif self._going:
            self.action_next()

    def _rank_again(self) -> None:
        self.run_worker(self._ranked_again(), group="rerank", exclusive=True)

    async def _ranked_again(self) -> None:
        await asyncio.sleep(SETTLES_S)
        known = self.session.recommended
        if known is not None and self.stale:
            self._take(await asyncio.to_thread(reranked, known, *self.asked))

    def _say(self, text: str) -> None:
        line = self.query_one("#looking", Static)
        line.set_class(bool(text), "-there")
        line.update(Content(text))

    # --- drawing

    @property
    def _ram_total(self) -> int | None:
        return self.session.hardware.host.ram_total_bytes if self.session.hardware else None

    def _draw(self) -> None:
        known = self.session.recommended
        if known is not None:
            answered = answers_now(self.session).method
            found = known.recommendation
            self.table.show(found, ram_total=self._ram_total, answered=answered)
            self._draw_row()

    def _draw_row(self) -> None:
        """The bar, the ladder and the words of the highlighted row."""
        known, row = self.session.recommended, self.table.row
        if known is None:
            return
        rungs = self._ladder.at(*self.asked).rungs(row) if self._ladder and row else ()
        self.query_one(MethodDetail).show(
            row,
            known.recommendation,
            rungs,
            asked=self.asked,
            limit=known.subject.shape.context_length,
            ram_total=self._ram_total,
        )
        self.update_rail()

    @on(MethodTable.Highlighted)
    def _highlighted(self, event: MethodTable.Highlighted) -> None:
        event.stop()
        self._going = self._going and not event.by_hand
        self._draw_row()

    # --- keys

    def ready(self) -> bool:
        """Whether the highlighted row is a choice that quantui gets to from here."""
        row = self.table.row
        return isinstance(row, Choice) and not why_not_from_here(row)

    def action_next(self) -> None:
        """Take the highlighted choice; one that is being ranked for another context is waited for."""
        self._going = self.ready() and self.stale
        if not self._going:
            super().action_next()

    def leave(self) -> None:
        """The choice is the answer. A profile that was opened stays as it is when it says the same."""
        row, loaded = self.table.row, self.session.loaded
        if not isinstance(row, Choice):
            return
        if loaded is None or key_of(row) != loaded.quantization.method:
            self._put_profile_away()
            self.session.answer(method=key_of(row))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether there are figures is known without working them out."""
        if action == "why":
            return True if self.table.row is not None else None
        return super().check_action(action, parameters)

    def why(self) -> Sequence[Row]:
        """Every figure of the highlighted row."""
        known, row = self.session.recommended, self.table.row
        if known is None or row is None:
            return ()
        from quantui.tui.method_words import why_rows

        return why_rows(row, known)

    def action_context(self, by: int) -> None:
        """One rung up or down; the bar follows at once, the ranking a moment later."""
        known = self.session.recommended
        if known is None:
            return
        from quantui.domain.choosing.context_ladder import rung_lengths

        asked = self.asked[0]
        lengths = rung_lengths(known.subject.shape.context_length, asked)
        place = min(max(lengths.index(asked) + by, 0), len(lengths) - 1)
        self._ask(context=lengths[place])

    def action_users(self, by: int) -> None:
        """Twice or half as many users at once."""
        users = self.asked[1]
        self._ask(users=min(users * 2, MOST_USERS) if by > 0 else max(1, users // 2))

    def _ask(self, **changes: int) -> None:
        self._put_profile_away()
        self.session.answer(**changes)
        self._draw_row()
        self._rank_again()

    def _put_profile_away(self) -> None:
        """What an opened profile says becomes answers, so that a change of one keeps the others."""
        if self.session.loaded is not None:
            self.session.answers = answers_now(self.session)
            self.session.loaded = None

    def action_again(self) -> None:
        """Look at the model and on the Hub once more: the network may be back, or a copy may be new."""
        self.session.places.pop("method.searched", None)
        self.tell(None)
        self._begin()

    def action_only_able(self) -> None:
        """Leave out what cannot be picked, or show it again."""
        self.table.only_able = not self.table.only_able
        self.table.draw()
        self._draw_row()
