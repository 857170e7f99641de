"""Method: what to serve the model as, ranked for this machine, with what each choice takes and costs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantui.domain.answers import best_from_here, key_of, why_not_from_here
from quantui.domain.choosing.recommendation import Choice
from quantui.domain.errors import QuantuiError
from quantui.tui import method_rows
from quantui.tui.method_words import choice_words, nothing_words, refusal_words
from quantui.tui.ranking import answers_now, ranked, reranked, wanted_of, with_ladder
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.context_ladder import ContextLadderBar
from quantui.tui.widgets.memory_bar import MemoryBar
from quantui.tui.widgets.pick_list import PickList

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual import events
    from textual.widget import Widget

    from quantui.domain.choosing.context_ladder import ContextLadder, Rung
    from quantui.domain.choosing.recommendation import Recommendation, Refusal
    from quantui.domain.explained_row import Row
    from quantui.tui.ranking import Ranking

MOST_USERS = 4096


class MethodScreen(StepScreen):
    """Ranked choices, then the refused with their reasons; below, the highlighted one on this machine's memory."""

    NAME = "method"
    TITLE = "method"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign,right", "context(1)", "context", key_display="+-"),
        Binding("minus,left", "context(-1)", "shorter context", show=False),
        Binding("right_square_bracket", "users(1)", "users", key_display="[]"),
        Binding("left_square_bracket", "users(-1)", "fewer users", show=False),
        Binding("v", "only_able", "only what works here", show=False),
    ]
    DEFAULT_CSS = """
    MethodScreen #head { height: 1; padding: 0; }
    MethodScreen #methods { height: 1fr; min-height: 4; }
    MethodScreen #told { height: auto; max-height: 8; }
    MethodScreen.-tall #told { max-height: 14; }
    MethodScreen MemoryBar { margin-top: 0; }
    MethodScreen.-tall MemoryBar { margin-top: 1; }
    MethodScreen #looking { height: auto; color: $text-muted; display: none; }
    MethodScreen #looking.-there { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._ladder: ContextLadder | None = None
        self._placed = ""
        self._moved = False
        self._going = False
        self._only_able = False

    # --- what is shown

    def compose_body(self) -> Iterable[Widget]:
        """The table, the memory of the highlighted row, the ladder, and reasons."""
        yield Static(id="head", markup=False)
        yield PickList(id="methods", markup=False)
        yield MemoryBar(id="bar")
        yield ContextLadderBar(id="ladder")
        yield Static(id="told", markup=False)
        yield Static("", id="looking", markup=False)

    def on_mount(self) -> None:
        """Show what is known; look up what is not."""
        self.methods.focus()
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
    def methods(self) -> PickList:
        """The table."""
        return self.query_one("#methods", PickList)

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

    @property
    def row(self) -> Choice | Refusal | None:
        """The highlighted choice or refusal."""
        known, option = self.session.recommended, self.methods.highlighted_option
        if known is None or option is None or option.id is None:
            return None
        kind, _, name = option.id.partition(":")
        found = known.recommendation
        if kind == "choice":
            return next((one for one in found.choices if key_of(one) == name), None)
        return next((one for one in found.refused if one.method == name), None)

    @property
    def rungs(self) -> Sequence[Rung]:
        """The ladder of the highlighted row, for what is asked now."""
        row = self.row
        return (
            () if self._ladder is None or row is None else self._ladder.at(*self.asked).rungs(row)
        )

    # --- looking up, and ranking anew

    def _begin(self) -> None:
        if self.session.hardware is None:
            self._say("The machine is being read…")
            return
        self.run_worker(self._look(), group="method", exclusive=True, exit_on_error=False)

    async def _look(self) -> None:
        """Rank what is known without the network, then again with what the Hub has."""
        wanted, session = wanted_of(self.session), self.session
        if wanted is None:
            self._say("No model is chosen: Esc goes back to the model.")
            return
        try:
            known = session.recommended
            if known is None:
                self._say("Looking at the model and at what fits…")
                self._take(await asyncio.to_thread(ranked, wanted, session.subject, offline=True))
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
        """Show a ranking; the highlight stays where the person put it."""
        self.session.recommended, self._ladder = found.recommended, found.ladder
        self.session.subject = found.recommended.subject
        self.tell(None)
        self._draw()
        if self.stale:
            self._rank_again()
        elif self._going:
            self.action_next()

    def _rank_again(self) -> None:
        self.run_worker(self._ranked_again(), group="rerank", exclusive=True, exit_on_error=False)

    async def _ranked_again(self) -> None:
        # Keys that repeat are ranked for once; the bar and the ladder have moved already.
        await asyncio.sleep(0.05)
        known = self.session.recommended
        if known is not None and self.stale:
            self._take(await asyncio.to_thread(reranked, known, *self.asked))

    def _say(self, text: str) -> None:
        line = self.query_one("#looking", Static)
        line.set_class(bool(text), "-there")
        line.update(Content(text))

    # --- drawing

    def _draw(self) -> None:
        known = self.session.recommended
        if known is None:
            return
        methods, found = self.methods, known.recommendation
        width = max(40, methods.scrollable_content_region.width)
        self.query_one("#head", Static).update(method_rows.table_head(width))
        kept, scrolled = self._wanted_row(), methods.scroll_y
        methods.set_options(self._options(found, width))
        places = {option.id: place for place, option in enumerate(methods.options)}
        place = next((places[one] for one in kept if one in places), None)
        if place is None:
            place = next((n for n, one in enumerate(methods.options) if not one.disabled), None)
        if place is not None:
            self._placed = methods.options[place].id or ""
            methods.scroll_to(y=scrolled, animate=False)
            methods.highlighted = place
        self._draw_row()

    def _options(self, found: Recommendation, width: int) -> Iterable[Option]:
        ram = self.session.hardware.host.ram_total_bytes if self.session.hardware else None
        for choice in found.choices:
            if not self._only_able or not why_not_from_here(choice):
                row = method_rows.choice_row(choice, width, ram)
                yield Option(row, id=f"choice:{key_of(choice)}")
        for heading, refused in method_rows.refused_groups(found.refused):
            if self._only_able:
                return
            yield Option(
                method_rows.group_row(heading, width), id=f"group:{heading}", disabled=True
            )
            for one in refused:
                yield Option(method_rows.refusal_row(one, width), id=f"refused:{one.method}")

    def _wanted_row(self) -> tuple[str, ...]:
        """The row to highlight, best first: where the person is, what was answered, what is best."""
        known = self.session.recommended
        assert known is not None
        found, answered = known.recommendation, answers_now(self.session).method
        wanted: list[str] = []
        if self._moved:
            name = self._placed.partition(":")[2]
            wanted += [f"choice:{name}", f"refused:{name}"]
        if answered is not None:
            wanted.append(f"choice:{answered}")
        best = best_from_here(found)
        if best is not None:
            wanted.append(f"choice:{key_of(best)}")
        if found.nearest is not None:
            wanted.append(f"refused:{found.nearest.method}")
        return tuple(wanted)

    def _draw_row(self) -> None:
        """The bar, the ladder and the words of the highlighted row."""
        known, row = self.session.recommended, self.row
        if known is None:
            return
        context, users = self.asked
        rungs = self.rungs
        at = next((rung.fit for rung in rungs if rung.context == context), None)
        result = at or (row.fit if row is not None else None)
        hardware = self.session.hardware
        self.query_one(MemoryBar).show(
            result,
            ram_total=hardware.host.ram_total_bytes if hardware else None,
            copies=1 if row is None else max(1, len(row.gpus)),
            why="What it would take is not computed: it cannot run here.",
        )
        limit = known.subject.shape.context_length
        self.query_one(ContextLadderBar).show(rungs, asked=context, users=users, limit=limit)
        told = self.query_one("#told", Static)
        told.update(self._words(row, known.recommendation, told.container_size.width))
        self.update_rail()

    def _words(self, row: Choice | Refusal | None, found: Recommendation, width: int) -> Content:
        lines = 14 if self.has_class("-tall") else 6
        if not found.choices:
            return nothing_words(found, width, lines)
        if row is None:
            return Content("")
        if isinstance(row, Choice):
            return choice_words(row, width, lines)
        return refusal_words(row, width, lines)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if event.option.id != self._placed:
            self._moved, self._going = True, False
            self._placed = event.option.id or ""
        self._draw_row()

    # --- keys

    def ready(self) -> bool:
        """Whether the highlighted row is a choice that quantui gets to from here."""
        row = self.row
        return isinstance(row, Choice) and not why_not_from_here(row)

    def action_next(self) -> None:
        """Take the highlighted choice; one that is being ranked for another context is waited for."""
        self._going = self.ready() and self.stale
        if not self._going:
            super().action_next()

    def leave(self) -> None:
        """The choice is the answer. A profile that was opened stays as it is when it says the same."""
        row = self.row
        if not isinstance(row, Choice):
            return
        loaded = self.session.loaded
        if loaded is not None and key_of(row) == loaded.quantization.method:
            return
        self._put_profile_away()
        self.session.answer(method=key_of(row))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether there are figures is known without working them out."""
        if action == "why":
            return True if self.row is not None else None
        return super().check_action(action, parameters)

    def why(self) -> Sequence[Row]:
        """Every figure of the highlighted row."""
        known, row = self.session.recommended, self.row
        if known is None or row is None:
            return ()
        from quantui.domain.recommend import explanation, refusal_explanation

        if isinstance(row, Choice):
            return explanation(row, use=known.use_case.name)
        return refusal_explanation(row)

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

    def action_only_able(self) -> None:
        """Leave out what cannot be picked, or show it again."""
        self._only_able = not self._only_able
        self._draw()
