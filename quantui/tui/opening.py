"""Opening a profile: read beside the interface, shown in Review; what is wrong with it is said where one is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.tui.app import QuantuiApp


def open_profile(app: QuantuiApp, path: Path) -> None:
    """Load ``path`` and go to Review with it; a broken one is told with file, line and nearest name."""
    app.run_worker(_opened(app, path), exclusive=True, group="opening")


def ask_for_profile(app: QuantuiApp) -> None:
    """Ask for a profile's path, then open it."""
    from quantui.tui.screens.ask_path import AskPath

    def chosen(path: Path | None) -> None:
        if path is not None:
            open_profile(app, path)

    known = app.session.profile_path
    app.push_screen(
        AskPath("open a profile", "The path of a profile (TOML):", str(known or "")), chosen
    )


async def _opened(app: QuantuiApp, path: Path) -> None:
    try:
        draft = await asyncio.to_thread(_load, path)
    except QuantuiError as error:
        _tell(app, error)
        return
    session = app.session
    # What was set by hand was for the answers: an opened profile says itself what it wants.
    session.answers = replace(session.answers, options={})
    session.loaded = draft
    session.profile_path = path
    session.plan = session.facts = None
    app.go("review")


def _load(path: Path) -> Draft:
    from quantui.runtime.last_profile import remember_profile
    from quantui.runtime.profile_file import load_profile

    path = Path(path).expanduser()
    draft = load_profile(path)
    remember_profile(path, draft.title)
    return draft


def _tell(app: QuantuiApp, error: QuantuiError) -> None:
    """Say it on the step, whatever lies above it being closed."""
    while len(app.screen_stack) > 2:
        app.pop_screen()
    if app.step is not None:
        app.step.tell(error)
