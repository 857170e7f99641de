"""The cache screen: places, the things in them, and how each is freed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text, wait_until
from plain_wizard import PlainWizard
from recorded_runs import record_run

from quantui.runtime.artifacts import ArtifactStore
from quantui.tui.screens.cache import age, size_words


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def artifact(name, size, record=None):
    folder = ArtifactStore().root / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * size)
    (folder / "quantui.json").write_text(json.dumps(record or {"kind": "merged", "base": "llama"}))


async def opened(pilot):
    await pilot.press("c")
    await wait_until(pilot, lambda: pilot.app.screen.found.done)
    await pilot.pause()


async def test_with_nothing_on_disk_it_says_so():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        text = screen_text(pilot)
        assert "Nothing is kept yet" in text
        assert text.count("none yet") == 5


async def test_the_largest_place_and_thing_come_first():
    artifact("small", 100_000)
    artifact("large", 3_000_000)
    record_run("20270101-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        text = screen_text(pilot)
        assert text.index("artifacts") < text.index("runs")
        assert text.index("large") < text.index("small")
        assert "merged, of llama" in text
        assert "free of" in text.splitlines()[0]


async def test_a_place_that_is_highlighted_shows_only_its_own_things_and_how_to_free_them():
    artifact("merged-one", 100_000)
    record_run("20270101-000000-aaaaaa")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "20270101-000000" in screen_text(pilot)
        await pilot.press("down")
        text = screen_text(pilot)
        assert "20270101-000000" not in text
        assert "quantui merge BASE ADAPTER --discard" in text


async def test_a_thing_that_is_highlighted_is_told_in_full():
    artifact("x" * 120, 100_000)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("tab")
        lines = screen_text(pilot).replace("\n ", "").replace("\n", "")
        assert "x" * 120 in lines


async def test_measuring_again_finds_what_came_meanwhile():
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        artifact("later", 100_000)
        await pilot.press("r")
        await wait_until(pilot, lambda: "later" in screen_text(pilot))


async def test_names_and_records_of_strangers_are_shown_as_text():
    artifact("[bold]\u202e\x1b[31m", 10, {"kind": "[/]", "base": "\x1b]52;c;YQ==\x07"})
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("tab")
        assert "\x1b" not in screen_text(pilot)
        assert "\u202e" not in screen_text(pilot)


@pytest.mark.parametrize("size", [(40, 12), (120, 40)])
async def test_it_can_be_seen_at_any_size_and_left_with_its_key(size):
    async with PlainWizard().run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("c")
        assert not hasattr(pilot.app.screen, "found")


def test_ages_are_told_in_one_unit():
    now = 1_000_000.0
    assert age(None, now) == "unknown"
    assert age(now - 59, now) == "now"
    assert age(now - 3600 * 5, now) == "5 h"
    assert age(now - 86400 * 40, now) == "40 d"
    assert age(now + 50, now) == "now"


def test_small_things_are_told_in_kib():
    assert [size_words(size) for size in (0, 2048, 3 * 1024**2, 5 * 1024**3)] == [
        "0.0 MiB",
        "2 KiB",
        "3.0 MiB",
        "5.00 GiB",
    ]
