"""The Method step: ranked choices, refusals with reasons, and a memory bar that follows the asked context."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from described_machines import A100, L4, LLAMA_70B, QWEN_7B, card, machine, model
from pilots import screen_text, wait_until
from wizard_steps import WizardAt

from quantui.domain.choosing.recommendation import Choice, Refusal
from quantui.domain.draft import Draft
from quantui.tui.widgets.method_table import MethodTable

RTX = card("NVIDIA GeForce RTX 4090", 23.5, "8.9")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """The Hub is not asked: what is ranked is what is here."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@asynccontextmanager
async def ranked(folder, *cards, config=QWEN_7B, size=(80, 24), **answers):
    """The step with everything looked up."""
    app = WizardAt("method", machine(folder, *cards), model=str(model(folder, config)), **answers)
    async with app.run_test(size=size) as pilot:
        await wait_until(pilot, lambda: app.session.recommended)
        await wait_until(pilot, lambda: settled(app))
        yield app, pilot


def settled(app) -> bool:
    """Nothing is looked up any more."""
    return not app.screen.query_one("#looking").has_class("-there")


def table(app) -> MethodTable:
    return app.screen.query_one(MethodTable)


def row_of(app, name: str) -> int:
    options = table(app).rows.options
    return next(n for n, one in enumerate(options) if one.id.partition(":")[2] == name)


async def highlight(app, pilot, name: str) -> None:
    table(app).rows.highlighted = row_of(app, name)
    await wait_until(pilot, lambda: getattr(table(app).row, "method", "") == name)
    await pilot.pause()


async def test_the_best_choice_that_can_be_gone_to_is_preselected(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        row = table(app).row
        assert isinstance(row, Choice)
        assert row.rank == 1
        assert row.title in screen_text(pilot)


async def test_every_choice_stands_with_its_figures_in_one_line(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        first = app.session.recommended.recommendation.choices[0]
        line = next(text for text in screen_text(pilot).splitlines() if text.startswith("  1 "))
        assert "✓ fits" in line
        assert f"{first.fit.weights.bytes / 1024**3:.2f}" in line
        assert str(first.fit.max_context) in line


async def test_a_refused_method_can_be_read_and_not_taken(tmp_path):
    async with ranked(tmp_path, A100, size=(100, 40)) as (app, pilot):
        await highlight(app, pilot, "w4a8")
        assert isinstance(table(app).row, Refusal)
        assert "needs compute capability 9.0" in " ".join(screen_text(pilot).split())
        assert "has 8.0" in " ".join(screen_text(pilot).split())
        await pilot.press("enter")
        assert app.screen.NAME == "method"
        assert app.session.answers.method is None
        assert "(⏎ next)" in screen_text(pilot)


async def test_a_choice_that_needs_a_larger_machine_is_not_taken(tmp_path):
    async with ranked(tmp_path, A100, config=LLAMA_70B, size=(100, 40)) as (app, pilot):
        await highlight(app, pilot, "autoround")
        assert isinstance(table(app).row, Choice)
        assert not app.screen.ready()
        assert "on a larger machine" in " ".join(screen_text(pilot).split())


async def test_the_bar_and_the_ladder_follow_the_context_at_the_key(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        assert "[8k✓]" in screen_text(pilot)
        await pilot.press("plus")
        assert app.session.answers.context == 16384
        await wait_until(pilot, lambda: "[16k✓]" in screen_text(pilot))
        await pilot.press("minus", "minus")
        await wait_until(pilot, lambda: "[4k✓]" in screen_text(pilot))


async def test_what_is_ranked_follows_the_context(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        await pilot.press("right")
        await wait_until(pilot, lambda: app.session.recommended.recommendation.context == 16384)
        assert app.session.recommended.situation.context == 16384


async def test_users_are_doubled_and_halved(tmp_path):
    async with ranked(tmp_path, L4, users=4) as (app, pilot):
        await pilot.press("right_square_bracket")
        await wait_until(pilot, lambda: app.session.recommended.recommendation.users == 8)
        await pilot.press("left_square_bracket", "left_square_bracket")
        await wait_until(pilot, lambda: app.session.recommended.recommendation.users == 2)


async def test_the_highlight_stays_when_the_ranking_is_made_anew(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        await pilot.press("down", "down")
        await wait_until(pilot, lambda: table(app).row.rank == 3)
        chosen = table(app).row.method
        await pilot.press("plus")
        await wait_until(pilot, lambda: not app.screen.stale)
        assert table(app).row.method == chosen


async def test_enter_takes_the_choice_and_goes_on(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: app.screen.NAME == "review")
        second = app.session.recommended.recommendation.choices[1]
        assert app.session.answers.method == second.method
        assert app.session.draft.quantization.method == second.method


async def test_coming_back_finds_what_was_taken(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        await pilot.press("down", "down", "enter")
        await wait_until(pilot, lambda: app.screen.NAME == "review")
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen.NAME == "method" and table(app).row)
        assert table(app).row.rank == 3


async def test_another_profile_is_not_shown_with_the_ranking_of_the_model_before(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        other = str(model(tmp_path, LLAMA_70B, "other"))
        app.session.loaded = Draft().with_option("model", "id", other)
        app.go("method")
        await wait_until(pilot, lambda: table_of_the(app, other))
        assert app.session.subject.model.ref == other


def table_of_the(app, ref: str) -> bool:
    known = app.session.recommended
    return known is not None and known.subject.model.ref == ref


async def test_enter_right_after_another_context_takes_it_along(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        await pilot.press("plus", "enter")
        await wait_until(pilot, lambda: app.screen.NAME == "review")
        assert app.session.draft.serve.max_model_len == 16384


async def test_where_nothing_fits_the_nearest_is_shown_with_what_would_help(tmp_path):
    async with ranked(tmp_path, RTX, config=LLAMA_70B) as (app, pilot):
        text = " ".join(screen_text(pilot).split())
        assert "Nothing of this fits here" in text
        assert "are missing" in text
        assert "too much" in text
        assert not app.screen.ready()


async def test_without_a_gpu_the_ram_is_the_device(tmp_path):
    async with ranked(tmp_path) as (_, pilot):
        assert "RAM: 64.00 GiB" in screen_text(pilot)


async def test_why_shows_formula_and_source(tmp_path):
    async with ranked(tmp_path, L4) as (_, pilot):
        await pilot.press("w")
        await wait_until(pilot, lambda: "source:" in screen_text(pilot))
        assert "weights" in screen_text(pilot)


async def test_only_what_works_can_be_shown(tmp_path):
    async with ranked(tmp_path, L4) as (app, pilot):
        await pilot.press("v")
        kinds = {option.id.partition(":")[0] for option in table(app).rows.options}
        assert kinds == {"choice"}


async def test_nothing_is_wider_than_the_screen(tmp_path):
    async with ranked(tmp_path, L4) as (_, pilot):
        lines = screen_text(pilot).splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert "history" in lines[-1]


async def test_an_opened_profile_that_keeps_its_method_stays_what_it_was(tmp_path):
    place = str(model(tmp_path, QWEN_7B))
    loaded = Draft().with_option("model", "id", place).with_option("serve", "port", 9000)
    app = WizardAt("method", machine(tmp_path, L4), loaded=loaded)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.recommended)
        await wait_until(pilot, lambda: isinstance(table(app).row, Choice))
        assert table(app).row.method == "none"
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen.NAME == "review")
        assert app.session.loaded is loaded


async def test_another_method_for_an_opened_profile_keeps_its_other_options(tmp_path):
    place = str(model(tmp_path, QWEN_7B))
    loaded = Draft().with_option("model", "id", place).with_option("serve", "port", 9000)
    app = WizardAt("method", machine(tmp_path, L4), loaded=loaded)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.recommended)
        await pilot.press("home")
        await wait_until(pilot, lambda: getattr(table(app).row, "rank", 0) == 1)
        chosen = table(app).row.method
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen.NAME == "review")
        assert app.session.draft.quantization.method == chosen
        assert app.session.draft.serve.port == 9000


async def test_a_model_that_is_not_there_is_told_on_the_screen(tmp_path):
    app = WizardAt("method", machine(tmp_path, L4), model=str(tmp_path / "nowhere"))
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "✗" in screen_text(pilot))
        assert "nowhere" in screen_text(pilot)
        await pilot.press("enter")
        assert app.screen.NAME == "method"
