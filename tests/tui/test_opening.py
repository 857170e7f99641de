"""Opening a profile leads to Review, or says what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text, wait_until
from plain_wizard import PlainWizard

from quantui.domain.draft import AdapterChoice, Draft, ModelChoice
from quantui.runtime.last_profile import last_profile
from quantui.tui.opening import ask_for_profile, open_profile

GOOD = 'schema = 1\n[model]\nid = "owner/llama"\n[quantization]\nmethod = "awq"\n'
BAD = 'schema = 1\n[model]\nid = "owner/llama"\n[quantization]\nmetod = "awq"\n'


async def test_an_opened_profile_is_what_review_shows(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(GOOD)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        session = pilot.app.session
        session.set_option("serve", "port", 9000)
        open_profile(pilot.app, path)
        await wait_until(pilot, lambda: pilot.app.gone)
        assert pilot.app.gone == "review"
        assert session.draft.quantization.method == "awq"
        assert session.draft.serve.port == 8000, "what was set by hand was for something else"
        assert session.profile_path == path
    assert last_profile().title == "llama, awq"


async def test_a_broken_one_is_told_with_its_line_and_the_nearest_name(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(BAD)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await pilot.press("h")
        open_profile(pilot.app, path)
        await wait_until(pilot, lambda: "prod.toml line 5" in screen_text(pilot))
        assert "Did you mean `quantization.method`?" in screen_text(pilot)
        assert pilot.app.gone == ""
        assert pilot.app.session.loaded is None
    assert last_profile() is None


async def test_its_path_is_asked_for(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(GOOD)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        ask_for_profile(pilot.app)
        await pilot.pause()
        await pilot.press(*str(path), "enter")
        await wait_until(pilot, lambda: pilot.app.gone)
        assert pilot.app.session.profile_path == path


async def test_leaving_the_question_opens_nothing():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        ask_for_profile(pilot.app)
        await pilot.pause()
        await pilot.press("x", "escape")
        await pilot.pause()
        assert pilot.app.gone == ""
        assert pilot.app.session.loaded is None


def test_a_profile_is_told_by_its_model_adapter_and_method():
    draft = Draft(model=ModelChoice(id="owner/llama"), adapter=AdapterChoice(id="/x/my-lora/"))
    assert draft.title == "llama + my-lora, none"
