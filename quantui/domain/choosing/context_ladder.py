"""One choice over a ladder of context lengths: which fit on its devices, and how many users each holds. Pure."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantui.domain.choosing.adapter_advice import adapter_advice
from quantui.domain.choosing.best_layout import supported_in
from quantui.domain.choosing.candidates import candidates
from quantui.domain.choosing.layouts import Layout, usable_slots
from quantui.domain.choosing.options import Asked, Workings, placed
from quantui.domain.choosing.recommendation import Choice
from quantui.domain.choosing.use_cases import use_case
from quantui.domain.hardware_checks import min_compute_capability
from quantui.domain.versions import version_numbers

if TYPE_CHECKING:
    from quantui.domain.choosing.candidates import Candidate
    from quantui.domain.choosing.recommendation import Refusal, Situation
    from quantui.domain.fitting.fit_facts import Fit
    from quantui.domain.support.method_support import Support

SHORTEST, SHORTEST_OF_SHORT = 2048, 256
"""Tokens of the lowest rung: below it few conversations fit. The second for models made for less than 8192."""
LONGEST_UNTOLD = 131072
"""Where the ladder ends when the model does not say how long a context may be."""

RungVerdict = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True)
class Rung:
    """One context length, in tokens. ``held``: users of the asked that the cache holds at once, by expected figures.

    tight: not all of the asked users at once, or not for sure. ``fit`` is for the asked users where they are held.
    """

    context: int
    verdict: RungVerdict
    held: int
    fit: Fit


def rung_lengths(limit: int | None, asked: int) -> tuple[int, ...]:
    """Powers of two up to what the model was made for, with that limit and the ``asked`` length among them."""
    last = limit or max(LONGEST_UNTOLD, asked)
    lowest = SHORTEST if last >= 4 * SHORTEST else SHORTEST_OF_SHORT
    powers = {lowest << step for step in range(24) if lowest << step <= last}
    return tuple(sorted({*powers, last, asked}))


class ContextLadder:
    """The ladders of one situation's choices. What all of them share is found once."""

    def __init__(self, situation: Situation, context: int, users: int) -> None:
        """``context`` and ``users`` are what was asked for, with the use case's defaults filled in."""
        self.situation = situation
        self.context = context
        self.users = users
        found, _ = candidates(situation, adapter_advice(situation))
        self._candidates = {one.method.name: one for one in found}
        lowest = min_compute_capability(version_numbers(situation.vllm_version))
        self._slots, _ = usable_slots(situation.hardware, situation.gpus, lowest)
        self._known: dict[tuple[str, tuple[int, ...], int, int], tuple[Rung, ...]] = {}

    def at(self, context: int, users: int) -> ContextLadder:
        """The ladders for other askings of the same situation; cheap, for each key press."""
        if (context, users) == (self.context, self.users):
            return self
        other = copy(self)
        other.context, other.users, other._known = context, users, {}
        return other

    def rungs(self, one: Choice | Refusal) -> tuple[Rung, ...]:
        """The ladder of a choice, or of what was refused for its memory; empty where nothing can be counted.

        All rungs are on the devices that ``one`` names. Some tenths of a millisecond the first time.
        """
        key = one.method, one.gpus, one.tensor_parallel, one.pipeline_parallel
        if key not in self._known:
            self._known[key] = tuple(self._rungs(one))
        return self._known[key]

    def _rungs(self, one: Choice | Refusal) -> list[Rung]:
        candidate = self._candidates.get(one.method)
        if candidate is None or one.fit is None:
            return []
        if not one.gpus and self._slots:
            return []
        by_index = {slot.gpu.index: slot for slot in reversed(self._slots)}
        if any(index not in by_index for index in one.gpus):
            return []
        slots = tuple(by_index[index] for index in one.gpus)
        layout = Layout(slots, one.tensor_parallel, one.pipeline_parallel)
        answer = (
            one.support
            if isinstance(one, Choice)
            else supported_in(candidate, layout, self.situation)
        )
        lengths = rung_lengths(self.situation.shape.context_length, self.context)
        return [self._rung(candidate, layout, answer, length) for length in lengths]

    def _rung(self, candidate: Candidate, layout: Layout, answer: Support, length: int) -> Rung:
        asked = Asked(use_case(self.situation.use_case), length, self.users)
        work = Workings(self.situation, asked, (), {})
        found = placed(candidate, layout, answer, work)
        if not found.fits:
            return Rung(length, "does not fit", found.held, found.fit)
        whole = found.held >= self.users and found.starts == "fits" and found.fit.verdict == "fits"
        return Rung(length, "fits" if whole else "tight", found.held, found.fit)
