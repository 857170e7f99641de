"""What a screen's small work raises is told; the wizard goes on."""

from __future__ import annotations

import sys
from pathlib import Path

from textual import work
from textual.widgets import Static

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import wait_until
from plain_wizard import PlainWizard

from quantui.runtime.paths import home
from quantui.tui.screens.over import OverScreen


class Broken(OverScreen):
    TITLE = "Broken"

    def compose_body(self):
        yield Static("still here")

    def on_mount(self):
        self.fail()

    @work(thread=True, group="broken", exit_on_error=False)
    def fail(self):
        raise IndexError("[bold]seven")


async def test_a_bug_in_a_screens_work_is_told_and_its_traceback_kept():
    async with PlainWizard().run_test(size=(80, 24), notifications=True) as pilot:
        told = []
        pilot.app.notify = lambda text, **more: told.append((text, more))
        await pilot.app.push_screen(Broken())
        await wait_until(pilot, lambda: told)
        ((text, more),) = told
        assert "IndexError: [bold]seven" in more["title"]
        assert more["markup"] is False
        (kept,) = home().glob("crash-*.txt")
        assert kept.name in text
        assert "in fail" in kept.read_text()
        assert isinstance(pilot.app.screen, Broken)
