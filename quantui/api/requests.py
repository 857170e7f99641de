"""From a call's arguments to a plan, and from a run plan to the folder it made."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from quantui.domain.draft import Draft
from quantui.domain.events import RunEvent
from quantui.domain.profile import check_together, set_option
from quantui.runtime.run_to_end import run_to_end

if TYPE_CHECKING:
    from quantui.domain.plan import Plan

Reference = str | os.PathLike[str]
"""A folder, or a Hub id (``owner/name``)."""
Device = Literal["auto", "gpu", "cpu"]
EventListener = Callable[[RunEvent], object]


def text(reference: Reference) -> str:
    """The reference as a draft has it."""
    return str(os.fspath(reference))


def draft_of(call: str, options: dict[str, object]) -> Draft:
    """The draft with these options, checked as a profile's are; None leaves the default."""
    draft = Draft()
    for path, value in options.items():
        section, _, key = path.partition(".")
        if value is not None:
            draft = set_option(draft, section, key, value, name=f"{call}()")
    check_together(draft, name=f"{call}()")
    return draft


def checkpoint(plan: Plan, on_event: EventListener | None) -> str:
    """Run the plan's steps; gives the folder that holds the result."""
    results = run_to_end(plan, on_event) if plan.steps else {}
    made = results.get("quantize") or results.get("merge") or {}
    return str(made.get("path") or plan.model.path)
