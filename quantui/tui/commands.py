"""The command palette: every step that can be reached, every screen, and what has no key of its own."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand

from quantui.tui.steps import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.screen import Screen

    from quantui.tui.app import QuantuiApp
    from quantui.tui.session import Session

_PURPOSE = {
    "hardware": "The GPUs, memory, disks and engines of this machine; pick the devices to use",
    "use_case": "What the model is for, how long its context is and how many use it at once",
    "model": "Pick a model, and an adapter if there is one",
    "method": "Ranked ways to quantize it, with memory, speed and quality",
    "review": "The steps, the profile and the exact commands before anything is run",
    "run": "Follow the run: steps, memory, log",
    "ready": "Talk to the served model, copy its address, stop it",
}


def reachable(session: Session) -> tuple[str, ...]:
    """The steps that can be shown with what is known: those before the first unanswered one, and the run's."""
    names = ["hardware", "use_case", "model"]
    if session.answers.model or session.loaded is not None:
        names.append("method")
    if session.draft is not None:
        names.append("review")
    if session.run is not None:
        names.append("run")
        if session.run.serving:
            names.append("ready")
    return tuple(names)


def system_commands(app: QuantuiApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """What the palette offers on ``screen``; each with a line of help."""
    here = app.step.NAME if app.step is not None else None
    names = reachable(app.session)
    for step in STEPS:
        if step.name in names and step.name != here:
            title = f"Go to {step.title}"
            yield SystemCommand(title, _PURPOSE[step.name], partial(app.go, step.name))
    yield SystemCommand(
        "Open a profile", "Load a TOML file and review what it does here", partial(_open, app)
    )
    yield SystemCommand("Show the cache", "What takes the disk, largest first", app.action_cache)
    yield SystemCommand(
        "Show the history", "Earlier runs, compared side by side or plotted", app.action_history
    )
    yield SystemCommand(
        "Show background runs", "Runs that live without this wizard", app.action_background
    )
    yield SystemCommand(
        "Help", "What this screen is for, and its keys", partial(_help, app, screen)
    )
    yield SystemCommand("Change the theme", "Dark, light, and others", app.action_change_theme)
    yield SystemCommand(
        "Save a screenshot",
        "An SVG picture of this screen, in the folder quantui was started in",
        # After the palette itself is gone from the screen.
        lambda: app.set_timer(0.1, partial(save_screenshot, app)),
    )
    yield SystemCommand(
        "Quit", "Leave; while a run is under way it is asked what becomes of it", app.action_leave
    )


def _help(app: QuantuiApp, screen: Screen[Any]) -> None:
    if app.screen is screen:
        app.action_help()


def _open(app: QuantuiApp) -> None:
    from quantui.tui.opening import ask_for_profile

    ask_for_profile(app)


def save_screenshot(app: QuantuiApp) -> None:
    """Write the screen as SVG into the current folder, and say where it is."""
    name = time.strftime("quantui-%Y%m%d-%H%M%S.svg")
    try:
        path = app.save_screenshot(name)
    except OSError as error:
        app.notify(
            f"{name} could not be written: {error.strerror}.", severity="error", markup=False
        )
    else:
        app.notify(f"Saved {path}.", markup=False)
