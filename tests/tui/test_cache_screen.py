"""The cache screen: places, the things in them, the filter, the order, what a thing is."""

from __future__ import annotations

import os

import pytest
from fixtures.cache_things import (
    aged,
    artifact,
    names,
    open_in_a_process,
    opened,
    own_places,
    repository,
    settled,
    title,
)
from fixtures.pilots import screen_text, wait_until
from fixtures.plain_wizard import PlainWizard
from fixtures.recorded_runs import record_run
from textual.events import Key

from quantui.runtime.artifacts import ArtifactStore
from quantui.tui.screens.cache import CacheScreen
from quantui.tui.widgets.cache_tables import FilterLine


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


async def test_with_nothing_on_disk_it_says_so():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "Nothing is kept yet" in screen_text(pilot)
        assert "0 B in 0 things" in title(pilot)


async def test_the_largest_place_and_thing_come_first():
    artifact("small", 100)
    artifact("large", 3000)
    record_run("20270101-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        places = [place.name for place in pilot.app.screen._places.rows]
        assert places.index("artifacts") < places.index("runs")
        assert [name.split("--")[0] for name in names(pilot)][:2] == ["large", "small"]
        assert "in 3 things" in title(pilot)


async def test_the_disk_is_told_with_what_is_free():
    artifact("one")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert " free of " in screen_text(pilot).splitlines()[1]


async def test_a_budget_is_told_with_what_is_used_of_it(own_home):
    artifact("one", 1000)
    (own_home / "settings.toml").write_text('[cache]\nbudget = "2MiB"\n')
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "of the budget of 2.0 MiB" in screen_text(pilot)


async def test_settings_that_are_wrong_are_told_and_the_things_shown_all_the_same(own_home):
    artifact("one")
    (own_home / "settings.toml").write_text("[cache]\nbudgett = 1\n")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "budgett" in screen_text(pilot)
        assert len(names(pilot)) == 1


async def test_a_place_that_is_highlighted_shows_only_its_own_things():
    artifact("merged-one", 100)
    record_run("20270101-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "20270101-000000-aaaaaa" in names(pilot)
        pilot.app.screen._places.focus()
        await pilot.press("down")
        await wait_until(pilot, lambda: len(names(pilot)) == 1)
        assert names(pilot)[0].startswith("merged-one")
        assert str(ArtifactStore().root) in screen_text(pilot).replace("\n ", "")


async def test_a_thing_that_is_highlighted_is_told_in_full():
    path = artifact("x" * 60, 100)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        lines = screen_text(pilot).replace("\n ", "").replace("\n", "")
        assert path.name in lines


async def test_scanning_again_finds_what_came_meanwhile():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        artifact("later", 100)
        await pilot.press("r")
        await wait_until(pilot, lambda: "later" in screen_text(pilot))


async def test_what_is_gone_when_it_scans_again_is_not_shown_any_more():
    path = artifact("short-lived")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        path.rename(path.parents[2] / "elsewhere")
        await pilot.press("r")
        await wait_until(pilot, lambda: names(pilot) == [])


async def test_names_and_records_of_strangers_are_shown_as_text():
    folder = ArtifactStore().root / "[bold]\u202e\x1b[31m\udcff"
    folder.mkdir(parents=True)
    (folder / "quantui.json").write_text('{"kind": "[/]", "base": "\\u001b]52;c;YQ==\\u0007"}')
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "[bold]" in screen_text(pilot)
        for key in ("a", "w", "escape", "d"):
            await pilot.press(key)
            assert not {"\x1b", "\u202e", "\x07", "\udcff"} & set(screen_text(pilot))


@pytest.mark.parametrize("size", [(40, 12), (60, 18), (120, 40)])
async def test_it_can_be_seen_at_any_size_and_left_with_its_key(size):
    artifact("seen")
    async with PlainWizard().run_test(size=size) as pilot:
        await opened(pilot)
        assert "seen" in screen_text(pilot)
        await pilot.press("c")
        assert not hasattr(pilot.app.screen, "kept")


async def test_coming_back_it_shows_at_once_what_was_found_before():
    artifact("known")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("escape", "c")
        assert list(pilot.app.screen.kept.items)


# --- repositories


async def test_a_repository_shows_its_revisions_once_it_is_opened(hub):
    repository(hub, "pilot/model")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert len(names(pilot)) == 1
        await pilot.press("right")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)
        await pilot.press("left")
        await wait_until(pilot, lambda: len(names(pilot)) == 1)
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)


async def test_left_on_a_revision_goes_to_its_repository(hub):
    repository(hub, "pilot/model")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("right")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)
        await pilot.press("down", "down", "left")
        assert pilot.app.screen.table.cursor == 0


async def test_a_revision_says_what_stays_because_others_share_it(hub):
    repository(hub, "pilot/model", kib=512)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("right")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)
        await pilot.press("down")
        await wait_until(pilot, lambda: "of it stay" in screen_text(pilot))
        await pilot.press("w")
        assert "held by" in screen_text(pilot)


# --- filter and order


async def type_filter(pilot, text):
    if not pilot.app.screen.query_one(FilterLine).has_focus:
        await pilot.press("slash")
    for character in text:
        await pilot.press("space" if character == " " else character)


async def test_a_filter_narrows_as_it_is_typed_and_counts_what_it_leaves():
    artifact("llama", 2000)
    artifact("other", 100)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await type_filter(pilot, "lla")
        await wait_until(pilot, lambda: len(names(pilot)) == 1)
        assert "1 of 2 things, 2.0 MiB" in screen_text(pilot)
        await pilot.press("ctrl+u")
        await wait_until(pilot, lambda: len(names(pilot)) == 2)


async def test_a_half_typed_filter_says_what_is_wrong_and_keeps_what_was_found():
    artifact("llama", 2000)
    artifact("other", 100)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await type_filter(pilot, "llama size")
        await wait_until(pilot, lambda: len(names(pilot)) == 0)
        await type_filter(pilot, ">")
        await wait_until(pilot, lambda: "it says nothing after the >" in screen_text(pilot))
        assert len(names(pilot)) == 0
        await type_filter(pilot, "1MB")
        await wait_until(pilot, lambda: len(names(pilot)) == 1)
        assert "says nothing" not in screen_text(pilot)


async def test_escape_leaves_the_filter_then_empties_it_then_leaves_the_screen():
    artifact("llama")
    artifact("other")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await type_filter(pilot, "lla")
        await wait_until(pilot, lambda: len(names(pilot)) == 1)
        await pilot.press("escape")
        assert pilot.app.screen.query_one("#find").value == "lla"
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(names(pilot)) == 2)
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, CacheScreen))


async def test_a_filter_that_is_typed_ahead_arrives_whole():
    """As over a slow line: the key that goes to the filter and the letters for it in one packet."""
    artifact("llama")
    artifact("other")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for key, character in (("slash", "/"), *((letter, letter) for letter in "llama")):
            pilot.app.post_message(Key(key, character))
        await wait_until(pilot, lambda: pilot.app.screen.query_one(FilterLine).value == "llama")
        await wait_until(pilot, lambda: len(names(pilot)) == 1)
        assert not pilot.app.screen.kept.selected


async def test_letters_in_the_filter_are_no_keys():
    artifact("daxpo")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await type_filter(pilot, "daxpovwuryq")
        await wait_until(pilot, lambda: "Nothing matches" in screen_text(pilot))
        assert pilot.app.screen.kept.text == "daxpovwuryq"


async def test_the_filter_takes_age_and_kind():
    aged(artifact("old"), 40)
    aged(artifact("new"), 1)
    aged(artifact("quantized", kind="awq"), 50)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await type_filter(pilot, "used>30d kind=merged")
        await wait_until(pilot, lambda: [name[:5] for name in names(pilot)] == ["old--"])


async def test_o_goes_through_the_orders():
    aged(artifact("a-small-old", 50), 9)
    aged(artifact("b-large-new", 500), 1)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        seen = {}
        for _ in range(4):
            order = pilot.app.screen.kept.order
            await wait_until(pilot, lambda order=order: f"by {order}" in screen_text(pilot))
            seen[order] = names(pilot)[0][0]
            await pilot.press("o")
        assert seen == {"size": "b", "frees": "b", "used": "a", "name": "a"}


# --- what a thing is


async def test_w_says_what_the_bytes_are_and_who_shares_them():
    first = artifact("first", 500)
    second = artifact("second", 10)
    os.link(first / "more.safetensors", second / "linked.safetensors")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("w")
        text = screen_text(pilot)
        assert "held alone" in text
        assert "st_blocks" in text


async def test_a_process_that_uses_a_thing_is_named():
    path = artifact("served")
    async with PlainWizard().run_test(size=(120, 40)) as pilot:
        with open_in_a_process(path / "more.safetensors") as pid:
            await opened(pilot)
            assert "in use" in screen_text(pilot)
            assert f"process {pid}" in screen_text(pilot)


async def test_y_copies_the_path():
    path = artifact("copied")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("y")
        assert pilot.app.clipboard == str(path)


async def test_the_keys_are_told_in_the_help():
    async with PlainWizard().run_test(size=(100, 60)) as pilot:
        await opened(pilot)
        await pilot.press("question_mark")
        text = screen_text(pilot)
        for words in ("size>10GB", "bring back", "select what can go", "compare the selected"):
            assert words in text


async def test_a_scan_is_ended_when_the_screen_is_left():
    for number in range(20):
        artifact(f"one-{number}")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "escape")
        await wait_until(pilot, lambda: not [w for w in pilot.app.workers if w.group == "cache"])


async def test_after_coming_back_the_title_is_whole_again():
    artifact("one")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("escape", "c")
        await settled(pilot)
        assert "in 1 thing" in title(pilot)
