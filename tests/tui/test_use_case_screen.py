"""The Use case step: what the model is wanted for, and two numbers with sane defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from described_machines import QWEN_7B, model
from pilots import screen_text, wait_until

from quantui.domain.choosing.use_cases import use_cases
from quantui.domain.hardware import HardwareReport
from quantui.tui.app import QuantuiApp
from quantui.tui.screens.use_case import UseCaseScreen
from quantui.tui.use_case_words import why_rows


async def asked(pilot) -> UseCaseScreen:
    """The step, once the app has settled."""
    await wait_until(pilot, lambda: pilot.app.session.engines is not None)
    pilot.app.go("use_case")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, UseCaseScreen))
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, UseCaseScreen)
    return screen


def app() -> QuantuiApp:
    return QuantuiApp(HardwareReport())


async def test_every_use_case_is_there_with_its_number_and_summary():
    async with app().run_test(size=(120, 40)) as pilot:
        await asked(pilot)
        text = screen_text(pilot)
        for place, use in enumerate(use_cases().values(), 1):
            assert f"{place % 10} {use.title}" in text
            assert use.summary[:50] in text


async def test_balanced_is_recommended_and_preselected():
    async with app().run_test(size=(80, 24)) as pilot:
        screen = await asked(pilot)
        assert screen.chosen.name == "balanced"
        assert "◆ recommended" in screen_text(pilot)


async def test_after_an_adapter_was_picked_serving_a_fine_tune_is_recommended():
    async with app().run_test(size=(80, 24)) as pilot:
        pilot.app.session.answer(model="base", adapter="mine")
        screen = await asked(pilot)
        assert screen.chosen.name == "serve-finetune"
        assert "an adapter was picked" in screen_text(pilot)


async def test_a_use_that_was_chosen_is_not_recommended_away():
    async with app().run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        await pilot.press("5", "escape")
        pilot.app.session.answer(model="base", adapter="mine")
        assert (await asked(pilot)).chosen.name == "long-context"


async def test_what_counts_is_shown_and_w_tells_its_source():
    async with app().run_test(size=(100, 40)) as pilot:
        await asked(pilot)
        await pilot.press("6")
        await pilot.pause()
        assert "speed     58%" in screen_text(pilot)
        await pilot.press("w")
        await pilot.pause()
        assert "llm-compressor's compression schemes" in screen_text(pilot)


@pytest.mark.parametrize("name", use_cases())
def test_the_weights_of_the_panel_add_up(name):
    shares = [row.value for row in why_rows(use_cases()[name]) if row.subject.endswith(" counts")]
    assert sum(int(share.rstrip("%")) for share in shares) == 100


async def test_the_defaults_of_the_use_case_stand_greyed_until_something_is_typed():
    async with app().run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        assert "8192 (default)" in screen_text(pilot)
        await pilot.press("5")
        await pilot.pause()
        assert "65536 (default)" in screen_text(pilot)
        await pilot.press("tab", "1", "2", "K")
        await pilot.pause()
        text = screen_text(pilot)
        assert "65536 (default)" not in text
        assert "12288 tokens of one request" in text


async def test_up_and_down_step_by_powers_of_two():
    async with app().run_test(size=(80, 24)) as pilot:
        screen = await asked(pilot)
        await pilot.press("tab", "up")
        assert screen.query_one("#context").number == 16384
        await pilot.press("down", "down")
        assert screen.query_one("#context").number == 4096
        await pilot.press(
            "backspace", "backspace", "backspace", "backspace", "5", "0", "0", "0", "minus"
        )
        assert screen.query_one("#context").number == 4096
        await pilot.press("tab", "plus")
        assert screen.query_one("#users").number == 8


async def test_what_is_no_such_number_is_told_at_once_and_enter_waits():
    async with app().run_test(size=(80, 24)) as pilot:
        screen = await asked(pilot)
        await pilot.press("tab", "0")
        await pilot.pause()
        text = screen_text(pilot)
        assert "The context length does not take '0'." in text
        assert "from 1 to 1073741824" in text
        assert "32K for 32768" in text
        assert "(⏎ next)" in text
        await pilot.press("enter")
        assert pilot.app.screen is screen
        await pilot.press("backspace", "8")
        await pilot.pause()
        assert "from 1 to" not in screen_text(pilot)


async def test_more_than_a_known_model_can_do_is_said(tmp_path):
    from quantui.runtime.subject import look_at

    folder = model(tmp_path, QWEN_7B)
    async with app().run_test(size=(80, 24)) as pilot:
        pilot.app.session.subject = look_at(str(folder), hardware=HardwareReport(), offline=True)
        await asked(pilot)
        assert "! the model" not in screen_text(pilot)
        await pilot.press("5")
        await pilot.pause()
        assert "! the model's own limit is 32768" in screen_text(pilot)
        await pilot.press("tab", "1", "6", "K")
        await pilot.pause()
        assert "! the model" not in screen_text(pilot)


async def test_letters_are_keys_in_a_field_too():
    async with app().run_test(size=(80, 24)) as pilot:
        screen = await asked(pilot)
        await pilot.press("tab", "w")
        await pilot.pause()
        assert pilot.app.screen is not screen
        assert screen.query_one("#context").value == ""


async def test_going_on_answers_and_going_back_keeps():
    async with app().run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        await pilot.press("6", "tab", "2", "K", "tab", "9", "enter")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, UseCaseScreen))
        answers = pilot.app.session.answers
        assert (answers.use_case, answers.context, answers.users) == ("many-users", 2048, 9)
        screen = await asked(pilot)
        assert screen.chosen.name == "many-users"
        assert screen.query_one("#context").value == "2048"
        assert screen.query_one("#users").value == "9"


async def test_an_emptied_field_is_the_default_again():
    async with app().run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        await pilot.press("tab", "9", "escape")
        assert pilot.app.session.answers.context == 9
        await asked(pilot)
        await pilot.press("tab", "backspace", "escape")
        assert pilot.app.session.answers.context is None


async def test_another_use_case_says_what_it_clears():
    wizard = app()
    async with wizard.run_test(size=(80, 24), notifications=True) as pilot:
        await asked(pilot)
        await pilot.press("tab", "9", "escape")
        wizard.session.answer(method="awq")
        await asked(pilot)
        await pilot.press("2", "escape")
        await wait_until(pilot, lambda: "Cleared: the context length, the" in screen_text(pilot))
        assert "method." in screen_text(pilot)
        assert wizard.session.answers.context is None


async def test_numbers_typed_for_a_use_are_there_again_when_it_is_highlighted_again():
    async with app().run_test(size=(80, 24)) as pilot:
        screen = await asked(pilot)
        await pilot.press("tab", "9", "shift+tab", "down")
        assert screen.query_one("#context").value == ""
        await pilot.press("up")
        assert screen.query_one("#context").value == "9"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_everything_is_within_reach(size):
    async with app().run_test(size=size) as pilot:
        screen = await asked(pilot)
        told = screen.query_one("#counts Static").content.plain.splitlines()
        seen = screen_text(pilot)
        for _ in range(4):
            await pilot.press("pagedown")
            await pilot.pause()
            seen += screen_text(pilot)
        assert told[-1][:20] in seen
        assert "users at once" in seen
