"""The Review step: what would be done, what it costs, what would be saved, and when it may begin."""

from __future__ import annotations

import sys
import threading
import tomllib
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from checkpoint_folders import adapter_files, model_files, write
from described_machines import L4, LLAMA_70B, machine, model
from fixtures.public_machines import gpu
from fixtures.public_machines import machine as this_machine
from pilots import screen_text, wait_until
from wizard_steps import WizardAt

from quantui.domain.caches.items import CacheItem, DiskUse, Kind, Rebuild
from quantui.domain.draft import Draft, Recorded
from quantui.domain.errors import QuantuiError
from quantui.domain.events import RunFinished
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.last_profile import last_profile
from quantui.runtime.profile_file import load_profile, save_profile
from quantui.tui.messages import RunChanged, RunLost
from quantui.tui.run_view import RunView
from quantui.tui.screens import review

WITH_A_GPU = replace(this_machine(gpu("4090")), simulated=False)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """The Hub is not asked."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def profile(tmp_path) -> Draft:
    """A profile of a small checkpoint with an adapter, as one that was opened."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    base = write(tmp_path / "base", model_files(**sizes, vocab_size=128))
    lora = write(tmp_path / "lora", adapter_files())
    draft = Draft().with_option("model", "id", str(base))
    return draft.with_option("adapter", "id", str(lora)).with_option("serve", "max_model_len", 512)


@asynccontextmanager
async def reviewed(draft, where=WITH_A_GPU, size=(100, 40), profile=None):
    """The step with its plan made, or refused."""
    app = WizardAt("review", where, loaded=draft, profile=profile)
    async with app.run_test(size=size) as pilot:
        problem = app.screen.query_one("#problem")
        await wait_until(pilot, lambda: app.session.plan or problem.has_class("-there"))
        await pilot.pause()
        yield app, pilot


def words(pilot) -> str:
    return " ".join(screen_text(pilot).replace("│", " ").split())


async def test_the_steps_stand_with_time_disk_and_downloads(profile):
    async with reviewed(profile) as (app, pilot):
        text = words(pilot)
        assert "1 install the engine" in text
        assert "2 merge lora into base" in text
        assert "serve with vLLM, as it is" in text
        install = app.session.plan.step("install")
        assert f"{install.download_bytes / 1024**3:.2f} GiB" in text
        assert "free" in text


async def test_what_could_go_is_told_where_a_disk_is_too_small(profile, monkeypatch):
    for name in ("plan_room._free", "caches.room._free_bytes"):
        monkeypatch.setattr(f"quantui.runtime.{name}", lambda _: 1 << 20)
    use = DiskUse(8 << 30, 8 << 30)
    again = Rebuild("download it again", download=8 << 30)
    old = CacheItem(Kind.HUB, "owner/old", "/", "/", use, used_at=1e9, rebuild=again)
    monkeypatch.setattr("quantui.runtime.caches.room._look", lambda _: ({old.path: old}, True))
    device = Path("/").stat().st_dev
    monkeypatch.setattr("quantui.runtime.caches.room.device_of", lambda _: device)
    async with reviewed(profile) as (_, pilot):
        await wait_until(
            pilot, lambda: "could go: owner/old (8.00 GiB, not used for" in words(pilot)
        )
        assert "c shows what takes the disk" in words(pilot)


async def test_where_there_is_room_nothing_is_said_of_what_could_go(profile):
    async with reviewed(profile) as (app, pilot):
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "could go" not in words(pilot)


async def test_installing_is_said_to_need_nothing_but_enter(profile):
    async with reviewed(profile) as (_, pilot):
        assert "Enter also fetches and installs the engines that are missing" in words(pilot)


async def test_a_merge_that_was_made_before_is_marked_and_costs_nothing(profile):
    async with reviewed(profile) as (app, _):
        step = app.session.plan.step("merge")
    store = ArtifactStore()
    store.root.mkdir(parents=True)
    staged = store.stage(step.artifact, 0)
    staged.mkdir()
    (staged / "model.safetensors").write_bytes(b"x")
    store.commit(step.artifact, staged, {})
    async with reviewed(profile) as (_, pilot):
        line = next(text for text in screen_text(pilot).splitlines() if "merge lora" in text)
        assert "↺" in line
        assert "made before" in line
        assert "MiB" not in line


async def test_the_profile_is_shown_as_it_would_be_saved(profile):
    async with reviewed(profile) as (app, pilot):
        shown = app.screen.query_one("#profile-text").content.plain
        told = tomllib.loads(shown)
        assert told["model"]["id"] == profile.model.id
        assert told["serve"]["max_model_len"] == 512
        assert told["recorded"]["engine"] == "vllm-cuda"
        await pilot.press("e")
        whole = app.screen.query_one("#profile-text").content.plain
        assert "# TCP port; 0 takes a free one." in whole
        assert tomllib.loads(whole)["model"] == told["model"] | {"trust_remote_code": False}


async def test_the_commands_are_the_plans_own(profile):
    async with reviewed(profile) as (app, _):
        shown = app.screen.query_one("#commands-text").content.plain
        for title, line in app.session.plan.commands():
            assert f"# {title}\n{line}" in shown


async def test_commands_and_profile_are_copied(profile):
    async with reviewed(profile) as (app, pilot):
        await pilot.press("y")
        assert "quantui merge" in app.clipboard
        await pilot.press("t")
        assert tomllib.loads(app.clipboard)["serve"]["max_model_len"] == 512


async def test_where_it_is_narrow_tab_shows_the_commands_in_place_of_the_profile(profile):
    async with reviewed(profile, size=(80, 24)) as (app, pilot):
        assert app.screen.query_one("#profile").display
        await pilot.press("tab")
        await pilot.pause()
        assert app.screen.query_one("#commands").has_focus
        assert not app.screen.query_one("#profile").display


async def test_nothing_is_wider_than_the_screen(profile):
    async with reviewed(profile, size=(80, 24)) as (_, pilot):
        assert all(len(line) <= 80 for line in screen_text(pilot).splitlines())


async def test_enter_starts_the_plan_that_is_shown(profile, monkeypatch):
    begun = []
    async with reviewed(profile) as (app, pilot):
        monkeypatch.setattr(app, "start_run", lambda *told: begun.append(told))
        monkeypatch.setattr(app, "go", begun.append)
        await pilot.press("enter")
        plan, facts, draft = begun[0]
        assert plan is app.session.plan
        assert facts is app.session.facts
        assert draft == profile
        assert begun[1] == "run"


async def test_a_described_machine_runs_nothing_and_says_what_to_do_there(profile, tmp_path):
    async with reviewed(profile, machine(tmp_path, L4)) as (app, pilot):
        assert not app.screen.ready()
        assert "there: quantui --profile prod.toml" in words(pilot)
        await pilot.press("enter")
        assert app.session.run is None
        assert app.screen.NAME == "review"


async def test_a_sketch_of_a_model_can_be_planned_on_a_described_machine(tmp_path):
    draft = Draft().with_option("model", "id", str(model(tmp_path, LLAMA_70B)))
    draft = draft.with_option("quantization", "method", "mxfp4")
    draft = draft.with_option("serve", "max_model_len", 4096)
    big = replace(WITH_A_GPU, simulated=True)
    async with reviewed(draft, big) as (_, pilot):
        assert "does not fit" in words(pilot)


async def test_what_does_not_fit_is_told_with_its_fix_and_cannot_be_started(profile):
    greedy = profile.with_option("serve", "max_model_len", 1_000_000)
    async with reviewed(greedy) as (app, pilot):
        assert "✗" in screen_text(pilot)
        assert "fix" in words(pilot)
        assert not app.screen.ready()
        assert app.session.plan is None


async def test_what_differs_from_when_the_profile_was_saved_is_told(profile):
    old = replace(profile, recorded=Recorded(vllm_version="0.20.0", hardware="no GPU"))
    async with reviewed(old) as (_, pilot):
        assert "vLLM was 0.20.0, is" in words(pilot)
        assert "hardware was no GPU" in words(pilot)


async def test_why_tells_the_figures_of_memory_and_steps(profile):
    async with reviewed(profile) as (app, _):
        subjects = [row.subject for row in app.screen.why()]
        assert "weights" in subjects
        assert "merge lora into base" in subjects


async def test_a_living_run_is_asked_about_before_another_begins(profile):
    async with reviewed(profile) as (app, pilot):
        app.session.run = view = RunView()
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Start while another runs?" in screen_text(pilot))
        await pilot.press("escape")
        assert app.session.run is view
        assert not view.cancelling


async def test_the_other_run_is_stopped_before_this_one_begins(profile, monkeypatch):
    begun = []
    async with reviewed(profile) as (app, pilot):
        monkeypatch.setattr(app, "start_run", lambda *told: begun.append(told))
        monkeypatch.setattr(app, "go", begun.append)
        app.session.run = view = RunView()
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Start while another runs?" in screen_text(pilot))
        await pilot.press("x")
        await wait_until(pilot, lambda: view.cancelling)
        assert begun == []
        view.heard(RunFinished(at=1.0, outcome="cancelled", exit_code=130, seconds=1.0))
        app.post_message(RunChanged(view))
        await wait_until(pilot, lambda: begun)
        assert begun[1] == "run"


async def test_options_that_were_set_are_planned_with(profile):
    async with reviewed(profile) as (app, pilot):
        await pilot.press("o", "slash", *"tcp", "enter", "enter", *["backspace"] * 4, *"9000")
        await pilot.press("enter", "escape", "escape")
        await wait_until(pilot, lambda: app.session.plan)
        assert app.session.plan.step("serve").port == 9000


async def test_steps_of_other_options_are_marked_until_they_are_planned_anew(profile, monkeypatch):
    async with reviewed(profile) as (app, pilot):
        planning = review.planned_here
        goes_on = threading.Event()

        def slow(*given, **named):
            goes_on.wait(20)
            return planning(*given, **named)

        monkeypatch.setattr(review, "planned_here", slow)
        begun = []
        monkeypatch.setattr(app, "start_run", lambda *told: begun.append(told))
        await pilot.press("o", "slash", *"tcp", "enter", "enter", *["backspace"] * 4, *"9000")
        await pilot.press("enter", "escape", "escape")
        await wait_until(pilot, lambda: "steps, being planned anew…" in screen_text(pilot))
        assert "serve with vLLM, as it is" in words(pilot)
        await pilot.press("enter")
        goes_on.set()
        await wait_until(pilot, lambda: "planned anew" not in screen_text(pilot))
        assert app.session.plan.step("serve").port == 9000
        assert begun == []


async def test_a_run_that_could_not_begin_is_told_here(profile):
    async with reviewed(profile) as (app, pilot):
        app.post_message(RunLost(QuantuiError("run.lost", "The host is gone.", fix="Again.")))
        await wait_until(pilot, lambda: "The host is gone." in screen_text(pilot))
        await wait_until(pilot, lambda: app.session.plan)
        assert "The host is gone." in screen_text(pilot)


# --- saving


async def saved_as(pilot, path: Path) -> None:
    await pilot.press("s")
    await wait_until(pilot, lambda: "save the profile" in screen_text(pilot))
    pilot.app.screen.query_one("Input").value = str(path)
    await pilot.press("enter")


async def test_a_saved_profile_has_its_record_and_is_remembered(profile, tmp_path):
    path = tmp_path / "prod.toml"
    async with reviewed(profile) as (app, pilot):
        await saved_as(pilot, path)
        await wait_until(pilot, lambda: app.session.profile_path)
        assert load_profile(path).recorded.vllm_version == app.session.plan.engine.vllm_version
        assert load_profile(path).serve == profile.serve
        assert last_profile().path == path


async def test_a_file_that_is_there_is_not_replaced_unasked(profile, tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text("precious")
    async with reviewed(profile) as (_, pilot):
        await saved_as(pilot, path)
        await wait_until(pilot, lambda: "exists" in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "save the profile" in screen_text(pilot))
        await pilot.press("escape")
        assert path.read_text() == "precious"


async def test_updating_a_file_keeps_its_comments(profile, tmp_path):
    path = tmp_path / "prod.toml"
    save_profile(path, profile)
    path.write_text("# mine\n" + path.read_text())
    async with reviewed(profile.with_option("serve", "port", 9000), profile=path) as (_, pilot):
        await saved_as(pilot, path)
        await wait_until(pilot, lambda: "exists" in screen_text(pilot))
        await pilot.press("u")
        await wait_until(pilot, lambda: load_profile(path).serve.port == 9000)
        assert path.read_text().startswith("# mine\n")


async def test_a_place_that_cannot_be_written_is_told(profile, tmp_path):
    (tmp_path / "file").write_text("")
    async with reviewed(profile) as (_, pilot):
        await saved_as(pilot, tmp_path / "file" / "prod.toml")
        await wait_until(pilot, lambda: "could not be written" in screen_text(pilot))
