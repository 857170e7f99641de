"""Verifying in the cache screen: what is damaged is told, and nothing is changed."""

from __future__ import annotations

import pytest
from fixtures.cache_things import opened, own_places, repository
from fixtures.pilots import screen_text, wait_until
from fixtures.plain_wizard import PlainWizard

from quantui.tui.screens.cache import CacheScreen
from quantui.tui.screens.cache_verify import CacheVerify


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


async def verified(pilot):
    await opened(pilot)
    await pilot.press("v")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheVerify))
    await wait_until(pilot, lambda: pilot.app.screen.done)
    await pilot.pause()


async def test_what_is_whole_is_said_to_be(hub):
    repository(hub, "pilot/model")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await verified(pilot)
        assert "1 verified: nothing is damaged" in screen_text(pilot)
        assert "✓ ok" in screen_text(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheScreen))


async def test_a_changed_byte_is_found_and_the_file_stays(hub):
    folder = repository(hub, "pilot/model")
    blob = next((folder / "snapshots").glob("*/weights.bin")).resolve()
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(data)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await verified(pilot)
        assert "1 damaged or incomplete" in screen_text(pilot)
        assert "✗ damaged" in screen_text(pilot)
    assert blob.read_bytes() == bytes(data)
