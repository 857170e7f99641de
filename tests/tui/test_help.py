"""Help and the palette: what a screen is for, its keys, and where one can go from here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text
from plain_wizard import PlainWizard

from quantui.tui.commands import reachable, system_commands
from quantui.tui.screens.help import keys_of
from quantui.tui.session import Session


async def test_help_tells_every_key_that_the_key_bar_shows():
    async with PlainWizard().run_test(size=(100, 60)) as pilot:
        screen = pilot.app.screen
        shown = [one.binding for one in screen.active_bindings.values() if one.binding.show]
        told = " ".join(row.keys for row in keys_of(screen)).split()
        for binding in shown:
            assert pilot.app.get_key_display(binding) in told
        await pilot.press("question_mark")
        text = screen_text(pilot)
        assert "Keys of this screen" in text
        assert "Keys that work everywhere" in text


async def test_help_says_what_a_screen_is_for():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "question_mark")
        assert "Everything that quantui and the Hub keep on disk" in screen_text(pilot)
        assert "help: cache" in screen_text(pilot).lower()


async def test_the_same_key_closes_it():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        step = pilot.app.screen
        await pilot.press("question_mark", "question_mark")
        assert pilot.app.screen is step


async def test_a_key_that_cannot_be_used_is_in_brackets():
    async with PlainWizard().run_test(size=(100, 40)) as pilot:
        await pilot.press("h")
        await pilot.pause()
        await pilot.press("question_mark")
        assert "(x)" in screen_text(pilot)


def test_a_step_is_offered_once_what_it_needs_is_answered():
    session = Session()
    assert reachable(session) == ("hardware", "use_case", "model")
    session.answer(model="owner/model")
    assert reachable(session) == ("hardware", "use_case", "model", "method")


async def test_the_palette_offers_every_place_but_this_one_each_with_a_line_of_help():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        commands = list(system_commands(pilot.app, pilot.app.screen))
        titles = [command.title for command in commands]
        assert "Go to Hardware" in titles
        assert "Go to Use case" not in titles
        assert {"Show the cache", "Show the history", "Open a profile", "Quit"} <= set(titles)
        assert all(command.help for command in commands)


async def test_the_palette_leads_to_the_cache():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p", *"cache", "enter")
        await pilot.pause()
        assert screen_text(pilot).splitlines()[0].strip().startswith("Cache")


async def test_a_screenshot_is_saved_where_quantui_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        from quantui.tui.commands import save_screenshot

        save_screenshot(pilot.app)
    (saved,) = tmp_path.glob("quantui-*.svg")
    assert saved.read_text().startswith("<svg")


async def test_a_screenshot_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    async with PlainWizard().run_test(size=(80, 24), notifications=True) as pilot:
        from quantui.tui.commands import save_screenshot

        save_screenshot(pilot.app)
        await pilot.pause()
        assert [n.severity for n in pilot.app._notifications] == ["error"]
