"""The wizard in the pictures: a table of screens, and how to get to each."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import world
from drawing import screen_svg
from textual.widgets import Input
from written import as_if_written

from quantui.domain.events import from_dict
from quantui.runtime.described_hardware import described_hardware
from quantui.tui import app as wizard_app
from quantui.tui.app import QuantuiApp
from quantui.tui.run_view import RunView
from quantui.tui.steps import step_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events
    from textual.pilot import Pilot

RECORDED = world.HERE / "recorded"
WIDE = (120, 36)
NARROW = (80, 24)
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Picture:
    """One screen. ``step`` is shown first, then ``keys`` are pressed; it is drawn once all of ``until`` can be read.

    A key that begins with ``~`` is none: until these words can be read the next one is not pressed.
    ``answers`` are given before; ``prepare`` changes the session or the disk as it needs, ``then`` once the
    keys were pressed.
    """

    name: str
    step: str
    until: tuple[str, ...]
    size: tuple[int, int] = WIDE
    keys: tuple[str, ...] = ()
    machine: str = "two-rtx-4090.json"
    answers: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[PicturedWizard], None] | None = None
    then: Callable[[PicturedWizard], None] | None = None


class PicturedWizard(QuantuiApp):
    """The real app, opened at a step; nothing of it moves by itself."""

    CSS_PATH = Path(wizard_app.__file__).with_name("quantui.tcss")

    def __init__(self, picture: Picture) -> None:
        report = described_hardware(str(RECORDED / picture.machine))
        super().__init__(report, picture.machine)
        self.animation_level = "none"
        self.session.hardware = report
        self.session.answer(**picture.answers)
        self._first = picture.step
        if picture.prepare is not None:
            picture.prepare(self)

    def on_mount(self, event: events.Mount) -> None:
        """No earlier step is shown."""
        event.prevent_default()
        self.push_screen(step_named(self._first).screen())
        self.call_after_refresh(self.probe)


async def draw(picture: Picture) -> str:
    """The SVG of a picture."""
    app = PicturedWizard(picture)
    with as_if_written():
        return await _drawn(app, picture)


async def _drawn(app: PicturedWizard, picture: Picture) -> str:
    async with app.run_test(size=picture.size) as pilot:
        for key in picture.keys:
            if key.startswith("~"):
                await _settled(pilot, picture.name, (key[1:],))
            else:
                await pilot.press(key)
                await pilot.pause()
        if picture.then is not None:
            picture.then(app)
        await _settled(pilot, picture.name, picture.until)
        for line in app.screen.query(Input):
            line.cursor_blink = False
        await pilot.pause()
        return screen_svg(app, picture.name)


async def _settled(pilot: Pilot[Any], name: str, until: tuple[str, ...]) -> None:
    """Wait until everything that is to be seen is there and two looks at the screen are the same."""
    deadline = time.monotonic() + _LONGEST_WAIT_S
    before = ""
    while time.monotonic() < deadline:
        await pilot.pause()
        text = screen_text(pilot)
        if text == before and all(words in text for words in until):
            return
        before = text
        await asyncio.sleep(0.2)
    raise SystemExit(f"{name}: {until} never came; it shows:\n{text}")


def screen_text(pilot: Pilot[Any]) -> str:
    """What can be read."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


def run_until(record: str, *, seconds: float | None, ram_total: int | None) -> RunView:
    """A recorded run as it was ``seconds`` after its start (None: at its end); the clock stands there."""
    view = RunView()
    view.memory.ram_total = ram_total
    began: float | None = None
    for line in (RECORDED / record).read_text(encoding="utf-8").splitlines():
        event = from_dict(json.loads(line))
        began = event.at if began is None else began
        if seconds is not None and event.at - began > seconds:
            break
        view.heard(event)
        world.stand_still(event.at)
    return view
