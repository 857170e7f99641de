"""`quantui merge` with the real merge: what it makes, tells, reuses and leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures import hub_server
from fixtures.large_merge import write_merge
from fixtures.quantui_command import (
    Ended,
    Home,
    Running,
    when_a_terminal_closes,
    write_profile,
)

import quantui
from quantui.runtime.artifacts import read_artifact

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine


class Merging:
    """A quantui of its own that merges with the workers' interpreter."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.options = ("--python", python, "--set", "engine.name=vllm-cpu")

    def run(self, *arguments: object, **variables: str) -> Ended:
        ended = self.home.run("merge", *arguments, *self.options, **variables)
        assert self.home.processes() == {}
        return ended

    def start(self, *arguments: object) -> Running:
        return self.home.start("merge", *arguments, *self.options)

    def made(self, *arguments: object) -> Path:
        """The folder that a merge made just now."""
        ended = self.run(*arguments, "--json")
        assert ended.exit_code == 0, ended.text
        assert ended.of("step.reused") == []
        return Path(ended.of("step.finished")[-1]["result"]["path"])


@pytest.fixture
def merging(worker: Worker, tmp_path: Path) -> Merging:
    return Merging(tmp_path, worker.python)


@pytest.fixture(scope="module")
def merged(
    demo: Path, worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Merging, Ended]:
    """The demo's adapter in its base, as an artifact, and what was printed."""
    merging = Merging(tmp_path_factory.mktemp("merged"), worker.python)
    return merging, merging.run(demo / "base", demo / "adapter")


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def rows(ended: Ended) -> dict[str, str]:
    """What was told on stdout, by label."""
    return {line[:16].strip(): line[16:] for line in ended.out.splitlines()}


# What it makes and tells ---------------------------------------------------------------------------


def test_the_result_is_an_artifact_and_is_told_with_its_proof(
    merged: tuple[Merging, Ended],
) -> None:
    merging, ended = merged
    assert ended.exit_code == 0, ended.text
    (artifact,) = merging.home.artifacts
    found = read_artifact(artifact)
    assert found is not None
    made = found.record["made"]
    told = rows(ended)
    assert told["path"] == str(artifact)
    assert told["merged"].startswith(f"{made['tensors_changed']} tensors changed, ")
    assert f"all {made['adapter_tensors']} of the adapter used" in told["merged"]
    assert told["proof"].startswith(f"{made['proof']['sampled_rows']} rows computed again")
    assert told["largest change"].count(",") == 2
    assert told["method"] == "streamed"
    assert "/s, on cpu" in told["took"]
    assert {"size", "peak RSS"} <= set(told)


def test_asked_again_it_is_reused_and_says_so(demo: Path, merged: tuple[Merging, Ended]) -> None:
    merging, first = merged
    ended = merging.run(demo / "base", demo / "adapter")
    assert ended.exit_code == 0
    assert rows(ended)["path"] == rows(first)["path"] + " (made before)"
    assert "reused from" in ended.err


def test_a_profile_and_the_python_call_find_the_same(
    demo: Path, worker: Worker, merged: tuple[Merging, Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    merging, _ = merged
    (artifact,) = merging.home.artifacts
    sections = {
        "model": {"id": str(demo / "base")},
        "adapter": {"id": str(demo / "adapter")},
        "engine": {"name": "vllm-cpu", "python": worker.python},
    }
    profile = write_profile(merging.folder / "prod.toml", sections)
    ended = merging.home.run("--profile", profile, "--prepare-only", "--json")
    assert [event["artifact"] for event in ended.of("step.reused")] == [str(artifact)]
    monkeypatch.setenv("QUANTUI_HOME", str(merging.home.path))
    found = quantui.merge_adapter(demo / "base", demo / "adapter", engine_python=worker.python)
    assert found == str(artifact)


def test_out_is_the_same_model_in_a_folder_of_the_users(
    demo: Path, merged: tuple[Merging, Ended], merging: Merging
) -> None:
    out = merging.folder / "results" / "mine"
    out.parent.mkdir()
    assert merging.made(demo / "base", demo / "adapter", "--out", out) == out
    (artifact,) = merged[0].home.artifacts
    assert weights(out) == weights(artifact)
    assert [path.name for path in out.parent.iterdir()] == ["mine"]
    assert merging.home.artifacts == merging.home.unfinished == []
    told = merging.home.run("inspect", out)
    assert "all 56 of the adapter used" in told.out
    again = merging.run(demo / "base", demo / "adapter", "--out", out)
    assert again.exit_code == 2
    assert weights(out) == weights(artifact)


def test_the_type_and_the_tokenizer_can_be_chosen(demo: Path, merging: Merging) -> None:
    made = merging.made(
        demo / "base", demo / "adapter", "--dtype", "float32", "--tokenizer-from", "base"
    )
    assert json.loads((made / "merge_proof.json").read_text())["proof"]["dtype"] == "float32"
    assert sum(map(len, weights(made).values())) > 1.9 * sum(
        map(len, weights(demo / "base").values())
    )


def test_answers_can_be_compared_with_the_unmerged_adapters(demo: Path, merging: Merging) -> None:
    ended = merging.run(demo / "base", demo / "adapter", "--verify", "logits")
    assert ended.exit_code == 0, ended.text
    assert rows(ended)["answers"].startswith("KL to base + adapter ")


def test_several_adapters_are_merged_with_their_weights(
    demo: Path, merged: tuple[Merging, Ended], merging: Merging
) -> None:
    second = shutil.copytree(demo / "adapter", merging.folder / "second")
    pair = demo / "base", demo / "adapter", second
    ended = merging.run(*pair, "--weight", "0.25", "0.75")
    assert ended.exit_code == 0, ended.text
    assert "merge adapter and second into base" in ended.err
    halves = merging.made(*pair, "--weight", "0.5", "0.5")
    assert len(merging.home.artifacts) == 2
    # A quarter and three quarters of the same change, two halves, and all of it are one thing, but for rounding.
    (whole,) = merged[0].home.artifacts
    one, other = (weights(folder)["model.safetensors"] for folder in (whole, halves))
    different = sum(a != b for a, b in zip(one[-200_000:], other[-200_000:], strict=True))
    assert different < 200


def test_json_has_every_event_and_the_result(demo: Path, merging: Merging) -> None:
    ended = merging.run(demo / "base", demo / "adapter", "--json")
    kinds = [event["type"] for event in ended.events]
    assert (kinds[0], kinds[-1]) == ("run.started", "run.finished")
    result = ended.of("step.finished")[0]["result"]
    assert Path(result["path"]).is_dir()
    assert result["proof"]["all_finite"] is True
    assert ended.err == ""
    progress = [event for event in ended.of("step.progress") if event["unit"] == "bytes"]
    assert progress[-1]["done"] == progress[-1]["total"]


def test_base_and_adapter_come_from_the_hub_at_the_revisions_that_are_named(
    demo: Path, merged: tuple[Merging, Ended], merging: Merging
) -> None:
    hub, stop = hub_server.start()
    try:
        for name, folder in (("me/lora", demo / "adapter"), ("me/base", demo / "base")):
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            hub.repositories[name] = hub_server.Repository(files)
        config = json.loads(hub.repositories["me/lora"].files["adapter_config.json"])
        config["base_model_name_or_path"] = "me/base-bnb-4bit"
        hub.repositories["me/lora"].files["adapter_config.json"] = json.dumps(config).encode()
        full = hub_server.environment(hub, merging.folder)
        variables = {name: full[name] for name in full if name.startswith(("HF_", "NO_PROXY"))}
        commit = hub.repositories["me/lora"].commit
        ended = merging.run("me/base", f"me/lora@{commit}", "--json", **variables)
    finally:
        stop()
    assert ended.exit_code == 0, ended.text
    steps = [event["step"] for event in ended.of("step.finished")]
    assert steps == ["download-base", "download-adapter", "merge"]
    assert any("names me/base-bnb-4bit as its base" in e["text"] for e in ended.of("notice"))
    made = Path(ended.of("step.finished")[-1]["result"]["path"])
    (artifact,) = merged[0].home.artifacts
    assert weights(made) == weights(artifact)


# What it leaves ------------------------------------------------------------------------------------


def test_an_adapter_that_changes_nothing_is_never_called_merged(
    demo: Path, merging: Merging
) -> None:
    empty = shutil.copytree(demo / "adapter", merging.folder / "empty")
    file = empty / "adapter_model.safetensors"
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    file.write_bytes(content[:header] + bytes(len(content) - header))
    ended = merging.run(demo / "base", empty)
    assert ended.exit_code == 2
    assert "changes nothing" in ended.text
    assert merging.home.artifacts == merging.home.unfinished == []


LAYERS = 8


@pytest.fixture
def large(merging: Merging) -> list[str]:
    """Base and adapters of some hundred megabytes in nine files: a merge of a second or two."""
    job = write_merge(merging.folder / "large", LAYERS)
    adapters = job["adapters"]
    assert isinstance(adapters, list)
    return [str(job["base"]), *(adapter["path"] for adapter in adapters)]


def merge_workers(home: Home) -> list[int]:
    return [
        pid
        for pid, command in home.processes().items()
        if "merge_adapter.py" in command and "keeper" not in command
    ]


def kill_when_one_file_is_whole(merging: Merging, partial: Path, *arguments: object) -> Ended:
    running = merging.start(*arguments)
    deadline = time.monotonic() + 120
    while not noted_as_whole(partial):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for pid in merge_workers(merging.home):
        os.kill(pid, signal.SIGKILL)
    return running.end(60)


def noted_as_whole(partial: Path) -> bool:
    """Whether the journal has the line of a file; one that is only renamed is merged again after a kill."""
    journal = partial / "merge_journal.jsonl"
    return journal.exists() and '"file"' in journal.read_text(encoding="utf-8")


def test_killed_it_says_what_is_kept_and_goes_on_to_the_same_bytes(
    merging: Merging, large: list[str]
) -> None:
    undisturbed = weights(merging.made(*large))
    shutil.rmtree(merging.home.path)
    out = merging.folder / "out"
    partial = merging.folder / "out.partial"
    ended = kill_when_one_file_is_whole(merging, partial, *large, "--out", out)
    assert ended.exit_code == 3
    assert f"in {partial}" in ended.text
    assert f"--out {out} --discard" in ended.text

    again = merging.run(*large, "--out", out, "--json")
    assert again.exit_code == 0, again.text
    assert again.of("step.finished")[0]["result"]["resumed_shards"] > 0
    assert weights(out) == undisturbed
    assert not partial.exists()


def test_killed_it_can_be_discarded_instead(merging: Merging, large: list[str]) -> None:
    root = merging.home.path / "artifacts"
    running = merging.start(*large)
    deadline = time.monotonic() + 120
    while not list(root.glob("*.staged.partial/*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for pid in merge_workers(merging.home):
        os.kill(pid, signal.SIGKILL)
    assert running.end(60).exit_code == 3
    (left,) = merging.home.unfinished
    ended = merging.home.run("merge", *large, "--discard")
    assert ended.exit_code == 0
    assert f"discarding {left}" in ended.out
    assert merging.home.unfinished == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_it_leaves_nothing(
    merging: Merging, large: list[str], number: signal.Signals
) -> None:
    with when_a_terminal_closes(signal.SIG_DFL):
        running = merging.start(*large, "--json")
    running.wait_for(lambda event: event["type"] == "step.progress", 120)
    ended = running.stop(number)
    assert ended.exit_code == 130
    assert merging.home.artifacts == merging.home.unfinished == []
    assert merging.home.cleared()
