"""The selection of the cache screen: what it counts, what it survives, what is proposed for it."""

from __future__ import annotations

import os

import pytest
from fixtures.cache_things import (
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

from quantui.runtime.artifacts import ArtifactStore


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


def selected(pilot):
    return {path.rpartition("/")[2].split("--")[0] for path in pilot.app.screen.kept.selected}


async def test_space_selects_and_goes_on_to_the_next():
    artifact("first", 500)
    artifact("second", 100)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("space", "space")
        await wait_until(pilot, lambda: "2 selected" in title(pilot))
        await pilot.press("home", "space")
        await wait_until(pilot, lambda: "1 selected: frees 1" in title(pilot))
        assert selected(pilot) == {"second"}
        assert "●" in screen_text(pilot)


async def test_the_title_counts_what_is_freed_together():
    first, second = artifact("first", 1024), artifact("second", 8)
    os.link(first / "more.safetensors", second / "linked.safetensors")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("space")
        await wait_until(pilot, lambda: "1.0 MiB shared stays" in title(pilot))
        await pilot.press("space")
        await wait_until(pilot, lambda: "2 selected: frees 1.1 MiB" in title(pilot))
        assert "shared" not in title(pilot)


async def test_the_selection_survives_filter_place_cancel_scan_and_leaving():
    artifact("kept", 500)
    artifact("other", 100)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("space")
        await pilot.press("slash", *"other")
        await wait_until(pilot, lambda: "(1 not shown)" in title(pilot))
        await pilot.press("ctrl+u", "escape", "d")
        await pilot.press("escape", "r")
        await settled(pilot)
        assert selected(pilot) == {"kept"}
        await pilot.press("escape", "c")
        await settled(pilot)
        assert selected(pilot) == {"kept"}
        assert "1 selected" in title(pilot)


async def test_what_is_gone_is_not_selected_any_more():
    path = artifact("gone")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("space")
        path.rename(path.parents[2] / "elsewhere")
        await pilot.press("r")
        await wait_until(pilot, lambda: not selected(pilot))


async def test_a_selects_all_that_are_shown_and_then_none_of_them():
    for name in ("llama-a", "llama-b", "other"):
        artifact(name)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("slash", *"llama", "enter")
        await wait_until(pilot, lambda: len(names(pilot)) == 2)
        await pilot.press("a")
        assert selected(pilot) == {"llama-a", "llama-b"}
        await pilot.press("a")
        assert selected(pilot) == set()


async def test_a_leaves_out_what_is_in_use():
    used = artifact("used")
    artifact("free")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        with open_in_a_process(used / "more.safetensors"):
            await opened(pilot)
            await pilot.press("a")
            assert selected(pilot) == {"free"}


async def test_a_selected_repository_takes_its_revisions_with_it(hub):
    repository(hub, "pilot/model")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("space", "home", "right")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)
        assert screen_text(pilot).count("·  ") >= 2
        await pilot.press("down", "space")
        assert len(pilot.app.screen.kept.selected) == 1


async def test_a_repository_of_which_a_revision_is_selected_is_marked_half(hub):
    repository(hub, "pilot/model")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("right")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)
        await pilot.press("down", "space")
        await wait_until(pilot, lambda: "◐" in screen_text(pilot))


async def test_p_selects_what_can_go_without_regret_and_says_why():
    left = ArtifactStore().root / "half--merged--0123456789abcdef.staged"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"x" * 9000)
    for path in (left / "part", left):
        os.utime(path, (1.0e9, 1.0e9))
    artifact("whole")
    async with PlainWizard().run_test(size=(100, 30), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("p")
        await wait_until(pilot, lambda: "1 selected" in title(pilot))
        assert selected(pilot) == {"half"}
        at = [line.item.path for line in pilot.app.screen.table.rows].index(str(left))
        pilot.app.screen.table.cursor = at
        await wait_until(pilot, lambda: "proposed: not made to the end" in screen_text(pilot))


async def test_p_with_a_budget_says_how_far_it_is_from_it(own_home):
    artifact("whole", 2000)
    (own_home / "settings.toml").write_text('[cache]\nbudget = "1MB"\n')
    async with PlainWizard().run_test(size=(100, 30), notifications=True) as pilot:
        await opened(pilot)
        await pilot.press("p")
        await wait_until(
            pilot, lambda: "1 selected" in title(pilot) or "short of" in screen_text(pilot)
        )
