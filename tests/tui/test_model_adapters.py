"""Adapters in the Model step: alone with their base, and picked to go with a model."""

from __future__ import annotations

from fixtures import hub_cache, hub_server
from fixtures.checkpoint_folders import adapter_files, model_files
from fixtures.model_step import facts, read, told
from fixtures.pilots import screen_text, wait_until


async def test_an_adapter_shows_its_base_and_whether_it_was_trained_in_4_bit(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    lora = {**adapter_files(rank=8), "args.yaml": b"load_in_4bit: true\n"}
    hub_cache.cached(hub_root, "me/qlora", lora)
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "owner/base: here", "rank 8, alpha 16", "q_proj, v_proj")
        assert "trained in 4 bit: yes" in facts(pilot)
        assert "strong yes" in facts(pilot)
        assert "modules" in facts(pilot)


async def test_an_adapter_alone_takes_its_base(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "me/lora", adapter_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4", "enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        answers = pilot.app.session.answers
        assert (answers.model, answers.adapter) == ("owner/base", "me/lora")


async def test_the_base_of_an_adapter_may_have_to_be_downloaded(model_step, hub_root, hub):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    hub_cache.cached(hub_root, "me/lora", adapter_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "owner/base: to download")


async def test_an_adapter_whose_base_is_nowhere_says_what_to_do(model_step, hub_root):
    hub_cache.cached(hub_root, "me/lora", adapter_files(base="/workspace/out"))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "/workspace/out: not here", "press x here")
        assert pilot.app.screen.check_action("next", ()) is None


async def test_an_adapter_of_another_base_is_the_error_it_is(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "me/lora", adapter_files(hidden=32))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "me/lora was not made for owner/base")
        assert pilot.app.screen.check_action("next", ()) is None


async def test_an_adapter_is_picked_for_a_model_those_of_its_base_first(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "me/other", adapter_files(base="else/where"))
    hub_cache.cached(hub_root, "me/suited", adapter_files(base="owner/base"))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("x")
        await pilot.pause()
        text = screen_text(pilot)
        assert text.index("me/suited") < text.index("me/other")
        assert "trained on else/where" in text
        await pilot.press("enter")
        await told(pilot, "+ adapter me/suited", "✓ fits")
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        answers = pilot.app.session.answers
        assert (answers.model, answers.adapter) == ("owner/base", "me/suited")


async def test_an_adapter_that_was_picked_can_be_dropped(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "me/lora", adapter_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4", "x")
        await pilot.press("1")
        await told(pilot, "+ adapter me/lora")
        await pilot.press("x")
        await pilot.pause()
        await pilot.press("home", "enter")
        await wait_until(pilot, lambda: "+ adapter" not in facts(pilot))


async def test_a_mismatch_with_the_picked_adapter_is_told_at_once(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "me/lora", adapter_files(base="/somewhere/base", hidden=32))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("x")
        await pilot.pause()
        await pilot.press("enter")
        await told(pilot, "me/lora was not made for owner/base")
        assert pilot.app.screen.check_action("next", ()) is None
