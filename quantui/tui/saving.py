"""Saving what was chosen as a profile: where to, whether to replace what is there, then written and remembered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.domain.terminal_text import one_line
from quantui.tui.screens.ask import Ask, Reply
from quantui.tui.screens.ask_path import AskPath

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.domain.draft import Draft
    from quantui.domain.plan import Plan
    from quantui.domain.run_state import RunState
    from quantui.engines.planning import Facts
    from quantui.tui.screens.step import StepScreen

DEFAULT_NAME = "prod.toml"


def save_profile(screen: StepScreen) -> None:
    """Ask for a path and write the profile there, with a record of what it was made on.

    A file that is there is never replaced without a word. The path is kept in the session and remembered for the next
    wizard; what goes wrong is told on ``screen``.
    """
    screen.run_worker(_saved(screen), exclusive=True, group="saving")


async def _saved(screen: StepScreen) -> None:
    session, app = screen.session, screen.app
    view = session.run
    ran = view is not None and screen.NAME in ("run", "ready", "failure") and view.plan is not None
    if ran and view is not None:
        plan, facts, draft, state = view.plan, view.facts, view.draft, view.state
    else:
        plan, facts, draft, state = session.plan, session.facts, session.draft, None
    if plan is None or facts is None or draft is None:
        screen.notify("There is no plan to save yet.", severity="warning")
        return
    known = session.profile_path
    question = "Where to save the profile (TOML):"
    while True:
        asked = AskPath("save the profile", question, str(known or DEFAULT_NAME))
        path = await app.push_screen_wait(asked)
        if path is None:
            return
        if not path.suffix:
            path = path.with_suffix(".toml")
        reply = "new"
        if await asyncio.to_thread(_there, path):
            own = known is not None and path.absolute() == known.absolute()
            answer = await app.push_screen_wait(_ask_about(path, own=own))
            reply = answer or "other"
        if reply != "other":
            break
        known = path
    try:
        await asyncio.to_thread(
            _write, path, draft, facts, plan, state, afresh=reply in ("new", "replace")
        )
    except QuantuiError as error:
        screen.tell(error)
        return
    session.profile_path = path
    screen.tell(None)
    screen.update_rail()
    screen.notify(f"Saved {one_line(str(path))}.", markup=False)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # What cannot be looked at is told when it is written.
        return False


def _ask_about(path: Path, *, own: bool) -> Ask:
    """What to do with a file that is there; nothing of it is lost by the first reply."""
    update = Reply("update", "u", "update it: change what differs, keep its comments and layout")
    replies = (
        Reply("other", "n", "give another name"),
        update,
        Reply("replace", "r", "replace it: what is in it is lost"),
    )
    if own:
        replies = (update, replies[2], replies[0])
    return Ask("The file is there", f"{one_line(str(path))} exists.", replies)


def _write(
    path: Path, draft: Draft, facts: Facts, plan: Plan, state: RunState | None, *, afresh: bool
) -> None:
    from quantui.runtime.last_profile import remember_profile
    from quantui.runtime.profile_file import save_profile as write_profile
    from quantui.tui.planner import profile_of

    write_profile(path, profile_of(draft, plan, facts, state), afresh=afresh)
    remember_profile(path, draft.title)
