"""The facts of the Model step: all of them can be read, and each says where it comes from."""

from __future__ import annotations

from fixtures import hub_cache
from fixtures.checkpoint_folders import adapter_files, model_files
from fixtures.model_step import WIDE, read, solid, told
from fixtures.pilots import screen_text, wait_until


async def test_d_shows_the_facts_alone(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await told(pilot, "bfloat16")
        await pilot.press("d")
        await pilot.pause()
        assert "stored as" not in screen_text(pilot)
        assert pilot.app.screen.query_one("#facts").has_focus
        await pilot.press("escape")
        await pilot.pause()
        assert "stored as" in screen_text(pilot)


async def test_every_fact_can_be_scrolled_to_on_a_small_screen(model_step, hub_root):
    snapshot = hub_cache.cached(hub_root, "owner/base", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await told(pilot, snapshot.name, "only this machine was searched")
        await pilot.press("tab", "end")
        await pilot.pause()
        await wait_until(pilot, lambda: f"commit{snapshot.name}" in solid(pilot))


async def test_an_adapter_of_a_4_bit_copy_takes_the_16_bit_base_and_says_so(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "me/lora", adapter_files(base="owner/base-bnb-4bit"))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "owner/base: here", "it names owner/base-bnb-4bit, a 4-bit copy")


async def test_w_tells_where_the_figures_come_from(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    async with model_step().run_test(size=WIDE) as pilot:
        await read(pilot)
        await told(pilot, "bfloat16")
        await wait_until(pilot, lambda: pilot.app.screen.check_action("why", ()))
        await pilot.press("w")
        await pilot.pause()
        text = screen_text(pilot)
        assert "parameters" in text
        assert "safetensors headers" in text
