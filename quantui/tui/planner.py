"""The plan of a draft on the wizard's machine. Blocking: for thread workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantui.domain.draft import Draft
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.plan import Plan
    from quantui.domain.plan_costs import StepCost
    from quantui.domain.run_state import RunState
    from quantui.engines.planning import Facts
    from quantui.runtime.file_hashes import Progress


_BUDGET_S = 10.0
"""Nobody waits for the budget's line: it comes when it is known."""


@dataclass(frozen=True)
class Planned:
    """A plan with what Review shows beside it, all of it looked up once.

    ``costs`` of the steps, in their order, of which some were made before. ``differs``: what is not as it was when
    the profile was saved. ``profile``: its text as it would be saved, with its record; ``chosen``: only what is not
    at its default. ``others``: runs under way, a line each. ``room``: what could go where a disk is too small, and what
    is over the budget; looked up later than the rest, by :func:`room_here`.
    """

    draft: Draft
    plan: Plan
    facts: Facts
    costs: tuple[StepCost, ...]
    differs: tuple[str, ...]
    profile: str
    chosen: str
    others: tuple[str, ...] = ()
    room: tuple[str, ...] = ()


def plan_here(
    draft: Draft,
    hardware: HardwareReport | None = None,
    *,
    progress: Progress | None = None,
    on_event: Callable[[dict[str, object]], None] | None = None,
) -> tuple[Plan, Facts]:
    """The plan for ``draft`` on ``hardware``, with what is missing installed as steps of it.

    The engine is asked whether it knows the arguments only where the draft passes some of its own. For a described
    machine a folder with only config.json will do: nothing is run on it. Raises QuantuiError for what is missing,
    wrong, or does not fit.
    """
    from quantui.runtime.resolve import look_up, plan_for

    simulated = hardware is not None and hardware.simulated
    try:
        inputs = look_up(draft, progress=progress)
    except QuantuiError as error:
        if not simulated or error.code != "checkpoint.no-weights":
            raise
        inputs = look_up(draft, sketch=True, progress=progress)
    return plan_for(
        draft,
        install=True,
        hardware=hardware,
        inputs=inputs,
        check_arguments=not simulated,
        on_event=on_event,
    )


def planned_here(
    draft: Draft,
    hardware: HardwareReport | None = None,
    *,
    progress: Progress | None = None,
    on_event: Callable[[dict[str, object]], None] | None = None,
) -> Planned:
    """:func:`plan_here`, and what the Review step shows beside the plan."""
    plan, facts = plan_here(draft, hardware, progress=progress, on_event=on_event)
    from quantui.domain.plan_costs import step_costs
    from quantui.engines.recording import differences
    from quantui.runtime.living_runs import living_runs
    from quantui.runtime.made_before import made_before
    from quantui.runtime.profile_file import render_chosen, render_profile

    saved = profile_of(draft, plan, facts)
    return Planned(
        draft,
        plan,
        facts,
        step_costs(plan, made_before(plan)),
        tuple(differences(draft, facts, plan)),
        render_profile(saved),
        render_chosen(saved),
        tuple(f"{run.title}{', serving' if run.serving else ''}" for run in living_runs()),
    )


def room_here(planned: Planned) -> tuple[str, ...]:
    """What :attr:`Planned.room` holds: looking takes seconds where a disk is too small, or a budget set."""
    from quantui.runtime.caches.budget import BudgetWatch
    from quantui.runtime.made_before import made_before
    from quantui.runtime.plan_room import room_notes

    watch = BudgetWatch()
    watch.begin()
    notes = room_notes(planned.plan, made_before(planned.plan))
    hint = watch.hint(_BUDGET_S)
    return (*notes, hint) if hint else notes


def profile_of(draft: Draft, plan: Plan, facts: Facts, state: RunState | None = None) -> Draft:
    """``draft`` as it is saved: with absolute folders, a record of what it was made on, and what a run measured."""
    from datetime import UTC, datetime
    from pathlib import Path

    from quantui.engines.recording import with_record
    from quantui.runtime.profile_file import anchored

    now = datetime.now(UTC).isoformat(timespec="seconds")
    return with_record(anchored(draft, Path.cwd()), facts, plan, state, now)
