"""The editor of advanced options: every declared option, set where it stands, checked as a profile is."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from described_machines import L4, machine
from pilots import screen_text, wait_until
from wizard_steps import WizardAt

from quantui.domain.draft import SECTIONS, Draft, options_of
from quantui.domain.errors import QuantuiError
from quantui.tui.option_rows import edited_text, option_rows, read_value, type_words
from quantui.tui.screens.options import OptionsScreen

DRAFT = Draft().with_option("model", "id", "owner/model")


def row_of(path: str, draft: Draft = DRAFT):
    return next(row for row in option_rows(draft, ()) if row.path == path)


def test_every_declared_option_has_a_row():
    declared = {
        f"{section}.{name}"
        for section, cls in SECTIONS.items()
        if section != "recorded"
        for name in options_of(cls)
    }
    assert {row.path for row in option_rows(DRAFT, ())} == declared


def test_limits_and_choices_are_told_from_the_declaration():
    assert type_words(row_of("serve.port")) == "a whole number, 0 to 65535"
    assert type_words(row_of("merge.verify")) == "one of fast, logits"
    assert type_words(row_of("serve.enforce_eager")) == "true or false"
    assert type_words(row_of("serve.max_model_len")) == "a whole number, 16 or more"


@pytest.mark.parametrize(
    ("path", "typed", "value"),
    [
        ("serve.port", "9000", 9000),
        ("serve.gpu_memory_utilization", "0.5", 0.5),
        ("serve.gpu_memory_utilization", " ", None),
        ("serve.visible_devices", "0, 2", (0, 2)),
        ("serve.visible_devices", "[1]", (1,)),
        ("quantization.ignore", "lm_head, re:.*gate", ("lm_head", "re:.*gate")),
        ("serve.served_name", "true", "true"),
        (
            "serve.extra_args",
            '{ seed = 1, load-format = "auto" }',
            {"seed": 1, "load-format": "auto"},
        ),
        ("check.prompt", "What is 2 + 2?", "What is 2 + 2?"),
    ],
)
def test_what_is_typed_is_read_as_the_profile_reads_it(path, typed, value):
    assert read_value(DRAFT, row_of(path), typed) == value


@pytest.mark.parametrize(
    ("path", "typed", "said"),
    [
        ("serve.port", "70000", "at most 65535"),
        ("serve.port", "many", "whole number"),
        ("serve.visible_devices", "0, 0", "names a device twice"),
        ("serve.extra_args", "{ port = 1 }", "serve.port"),
        ("adapter.also", "other/lora", "needs a first adapter"),
    ],
)
def test_what_a_profile_may_not_hold_is_refused(path, typed, said):
    with pytest.raises(QuantuiError) as caught:
        read_value(DRAFT, row_of(path), typed)
    assert said in f"{caught.value.what} {caught.value.fix}"


@pytest.mark.parametrize(
    "path", [row.path for row in option_rows(DRAFT, ()) if row.value not in (None, (), {})]
)
def test_a_value_that_is_shown_to_be_edited_reads_back_as_itself(path):
    row = row_of(path)
    assert read_value(DRAFT, row, edited_text(row)) == row.value or row.value == ""


# --- the screen


@asynccontextmanager
async def editor(tmp_path, draft=DRAFT):
    app = WizardAt("review", machine(tmp_path, L4), loaded=draft)
    async with app.run_test(size=(80, 24)) as pilot:
        left: list[bool | None] = []
        app.push_screen(OptionsScreen(), left.append)
        await wait_until(pilot, lambda: isinstance(app.screen, OptionsScreen))
        await pilot.pause()
        yield app, pilot, left


async def find(pilot, words: str) -> None:
    await pilot.press("slash", *words, "enter")
    await pilot.pause()


async def test_words_find_an_option_by_name_or_meaning(tmp_path):
    async with editor(tmp_path) as (app, pilot, _):
        await find(pilot, "tcp")
        assert app.screen.row.path == "serve.port"
        assert "TCP port; 0 takes a free one." in screen_text(pilot)


async def test_a_number_is_typed_in_and_marked(tmp_path):
    async with editor(tmp_path) as (app, pilot, left):
        await find(pilot, "tcp")
        await pilot.press("enter", *["backspace"] * 4, *"9000", "enter")
        assert app.session.draft.serve.port == 9000
        assert "* port" in screen_text(pilot)
        await pilot.press("escape", "escape")
        assert left == [True]


async def test_a_wrong_value_is_told_beside_the_field_and_not_taken(tmp_path):
    async with editor(tmp_path) as (app, pilot, left):
        await find(pilot, "tcp")
        await pilot.press("enter", "9", "9", "enter")
        assert "at most 65535" in screen_text(pilot)
        assert app.session.draft.serve.port == 8000
        await pilot.press("escape", "escape", "escape")
        assert left == [False]


async def test_enter_takes_the_next_of_a_few_values(tmp_path):
    async with editor(tmp_path) as (app, pilot, _):
        await find(pilot, "verify")
        await pilot.press("enter")
        assert app.session.draft.merge.verify == "logits"
        await pilot.press("enter")
        assert app.session.draft.merge.verify == "fast"


async def test_unsetting_goes_back_to_what_was(tmp_path):
    async with editor(tmp_path) as (app, pilot, _):
        await find(pilot, "verify")
        await pilot.press("enter", "u")
        assert app.session.draft.merge.verify == "fast"
        assert app.session.answers.options == {}


async def test_unsetting_takes_a_value_out_of_an_opened_profile(tmp_path):
    draft = DRAFT.with_option("serve", "max_num_seqs", 8)
    async with editor(tmp_path, draft) as (app, pilot, _):
        await find(pilot, "max_num_seqs")
        await pilot.press("u")
        assert app.session.draft.serve.max_num_seqs is None


async def test_what_a_step_is_for_is_shown_and_not_set_here(tmp_path):
    async with editor(tmp_path) as (app, pilot, _):
        await find(pilot, "quantization method")
        await pilot.press("enter")
        assert app.screen.row.locked
        assert app.session.answers.options == {}


async def test_only_what_is_changed_can_be_shown(tmp_path):
    async with editor(tmp_path) as (app, pilot, _):
        await pilot.press("m")
        assert [one.id for one in app.screen.options.options] == ["# model", "model.id"]
