"""The Hub in the Model step: its search, and the quantized copies it knows."""

from __future__ import annotations

from fixtures import hub_cache, hub_server
from fixtures.checkpoint_folders import model_files
from fixtures.model_step import WIDE, read, rows, told, typed
from fixtures.pilots import screen_text, wait_until

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


async def test_the_hub_is_searched_as_one_types(model_step, hub):
    hub.repositories["Qwen/Qwen3-8B"] = hub_server.Repository(
        model_files(), listed={"downloads": 4_500_000, "safetensors": {"total": 8_190_000_000}}
    )
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("3")
        await typed(pilot, "qwen")
        await wait_until(pilot, lambda: rows(pilot) == ["Qwen/Qwen3-8B"])
        await pilot.pause()
        assert "8.19 B" in screen_text(pilot)
        assert "4.5M" in screen_text(pilot)
        await pilot.press("enter")
        await told(pilot, "LlamaForCausalLM")


async def test_a_hub_that_cannot_be_reached_is_told_of_once(model_step, hub_root, monkeypatch):
    hub_cache.use(monkeypatch, hub_root)
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("3")
        await typed(pilot, "qwen")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "could not be reached" in screen_text(pilot))
        assert "The Hub was not searched; r tries again." in screen_text(pilot)
        await pilot.press("1")
        await pilot.pause()
        assert "could not be reached" not in screen_text(pilot)


async def test_quantized_copies_are_offered_those_here_first(model_step, hub_root, hub):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    hub.repositories["other/base-AWQ"] = hub_server.Repository(
        model_files(quantization_config=AWQ), tags=("base_model:quantized:owner/base", "awq")
    )
    hub_cache.cached(hub_root, "owner/base", model_files())
    card = b"---\nbase_model: owner/base\n---\n"
    copy = {**model_files(quantization_config=AWQ), "README.md": card}
    hub_cache.cached(hub_root, "me/base-W4", copy)
    async with model_step().run_test(size=WIDE) as pilot:
        await read(pilot)
        at = rows(pilot).index("owner/base")
        await pilot.press("home", *["down"] * at)
        await told(pilot, "copies", "me/base-W4", "other/base-AWQ")
