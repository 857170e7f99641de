"""The Model step: what is on this machine, a name that is typed, and taking a model."""

from __future__ import annotations

from fixtures import hub_cache, hub_server
from fixtures.checkpoint_folders import adapter_files, model_files, write
from fixtures.model_step import WIDE, facts, read, rows, solid, told, typed
from fixtures.pilots import screen_text, wait_until

from quantui.runtime.browsed_folders import add_folder, added_folders

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


async def test_an_empty_machine_says_which_keys_help(model_step, hub_root):
    async with model_step().run_test(size=WIDE) as pilot:
        await read(pilot)
        text = " ".join(screen_text(pilot).split())
        assert "holds no models: press 3 to search the Hub, a to add a folder" in text
        assert pilot.app.screen.check_action("next", ()) is None


async def test_the_hub_cache_is_listed_and_what_is_highlighted_is_explained(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        assert rows(pilot) == ["owner/base"]
        await told(pilot, "bfloat16", "2048 tokens", "LlamaForCausalLM", "apache-2.0")
        assert "with a chat template" in facts(pilot)
        assert "custom code none" in facts(pilot)


async def test_moving_on_explains_the_next_one(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    hub_cache.cached(hub_root, "owner/base-AWQ", model_files(quantization_config=AWQ))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        at = rows(pilot).index("owner/base-AWQ")
        await pilot.press("home", *["down"] * at)
        await told(pilot, "quantized awq, 4 bit, groups of 128")


async def test_typing_narrows_and_escape_clears(model_step, hub_root):
    for name in ("llama-8b", "qwen-7b", "qwen-32b"):
        hub_cache.cached(hub_root, f"owner/{name}", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, "qwen 7")
        assert rows(pilot) == ["owner/qwen-7b"]
        await pilot.press("escape")
        assert len(rows(pilot)) == 3
        assert pilot.app.screen.query_one("#list").has_focus
        assert pilot.app.gone == ""


async def test_digits_show_the_tabs(model_step, hub_root, here):
    hub_cache.cached(hub_root, "owner/base", model_files())
    write(here / "mine", model_files())
    write(here / "lora", adapter_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2")
        assert [ref for ref in rows(pilot) if ref.startswith("/")] == [str(here / "mine")]
        await pilot.press("4")
        assert rows(pilot) == [str(here / "lora")]
        await pilot.press("right")
        assert rows(pilot) == ["owner/base"]


async def test_a_broken_one_is_shown_with_its_reason_and_cannot_be_taken(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/broken", {**model_files(), "config.json": b"{"})
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await told(pilot, "config.json is not the JSON it should be")
        assert "unusable" in screen_text(pilot)
        assert pilot.app.screen.check_action("next", ()) is None


async def test_hostile_names_are_harmless_and_whole(model_step, here):
    evil = "[red]\x1b[31mx\u202egnp[b]" + "n" * 200
    write(here / evil, model_files(model_type="[bold]\x1b]52;c;aGk=\x07type"))
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2")
        await told(pilot, "LlamaForCausalLM")
        await pilot.pause()
        text = screen_text(pilot)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "[red]xgnp[b]" + "n" * 200 in solid(pilot)


async def test_a_folder_is_added_with_its_models(model_step, tmp_path):
    write(tmp_path / "shelf" / "owner" / "one", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("a")
        await pilot.pause()
        await typed(pilot, str(tmp_path / "shelf"))
        await pilot.press("enter")
        await wait_until(pilot, lambda: str(tmp_path / "shelf" / "owner" / "one") in rows(pilot))


async def test_the_same_folder_again_is_no_longer_looked_through(model_step, tmp_path):
    shelf = write(tmp_path / "shelf", model_files())
    add_folder(str(shelf))
    async with model_step().run_test(size=WIDE) as pilot:
        await read(pilot)
        await pilot.press("2")
        assert str(shelf) in rows(pilot)
        await pilot.press("a")
        await pilot.pause()
        # A long path is broken where its line ends.
        assert "is_0/shelf" in "".join(screen_text(pilot).split())
        await typed(pilot, str(shelf))
        await pilot.press("enter")
        await wait_until(pilot, lambda: added_folders() == () and str(shelf) not in rows(pilot))
    assert shelf.exists()


async def test_a_current_folder_that_was_deleted_is_no_crash(model_step, here, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    here.rmdir()
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        assert rows(pilot) == ["owner/base"]


async def test_a_folder_that_is_not_there_is_refused(model_step, tmp_path):
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("a")
        await pilot.pause()
        await typed(pilot, str(tmp_path / "nowhere"))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "doesnotexist" in solid(pilot))


async def test_a_path_that_is_typed_is_looked_up_on_enter(model_step, tmp_path):
    folder = write(tmp_path / "far" / "away", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, str(folder))
        assert "LlamaForCausalLM" not in facts(pilot)
        await pilot.press("enter")
        await told(pilot, "LlamaForCausalLM")
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        assert pilot.app.session.answers.model == str(folder)


async def test_a_path_with_nothing_is_told_with_its_neighbours(model_step, tmp_path):
    write(tmp_path / "models", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, str(tmp_path / "model"))
        await pilot.press("enter")
        await told(pilot, "does not exist", str(tmp_path / "models"))
        assert pilot.app.screen.check_action("next", ()) is None


async def test_an_id_that_is_typed_is_asked_of_the_hub(model_step, hub):
    hub.repositories["owner/far"] = hub_server.Repository(model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, "owner/far")
        await pilot.press("enter")
        await told(pilot, "LlamaForCausalLM", "to download")


async def test_enter_takes_the_model_and_goes_on(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        session = pilot.app.session
        assert (session.answers.model, session.answers.adapter) == ("owner/base", None)
        assert session.subject.model.ref == "owner/base"
        assert session.subject.hardware is session.hardware


async def test_a_snapshot_without_a_branch_is_taken_by_its_commit(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files(), revision="c" * 40, branch=False)
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        assert pilot.app.session.answers.revision == "c" * 40


async def test_what_cannot_be_taken_stays_with_the_reason(model_step, hub_root):
    hub_cache.cached(
        hub_root, "owner/half", model_files(shards=3), lacks=("model-00002-of-00003.safetensors",)
    )
    async with model_step().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("enter")
        await told(pilot, "offline mode is on")
        assert pilot.app.gone == ""
        assert pilot.app.session.answers.model is None


async def test_coming_back_highlights_what_was_chosen(model_step, here):
    write(here / "one", model_files())
    write(here / "two", model_files())
    chosen = str(here / "two")
    async with model_step(model=chosen).run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: pilot.app.screen.query_one("#list").row is not None)
        await wait_until(pilot, lambda: pilot.app.screen.query_one("#list").row.ref == chosen)
        await wait_until(pilot, lambda: "✓" in screen_text(pilot))


async def test_another_model_forgets_what_was_chosen_for_the_old_one(model_step, hub_root):
    hub_cache.cached(hub_root, "owner/base", model_files())
    async with model_step(model="owner/other", method="int8").run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("1", "slash", "escape", "enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        assert pilot.app.session.answers.method is None
