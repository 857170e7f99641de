"""The main job, by the real command: merged, quantized, served, answered, stopped, and replayed."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.deployment import KEY
from fixtures.quantui_command import Ended, Home, can_be_bound

from quantui.domain.events import from_dict, to_dict
from quantui.runtime.artifacts import read_artifact

if TYPE_CHECKING:
    from fixtures.deployment import Deployment

pytestmark = pytest.mark.engine

KEY_VALUE = "sk-never-written-anywhere"


# The first run ---------------------------------------------------------------------------------


def test_it_ends_well(deployment: Deployment) -> None:
    assert deployment.first.exit_code == 0, deployment.first.err
    assert deployment.first.events[-1]["type"] == "run.finished"
    assert deployment.first.events[-1]["outcome"] == "ok"


def test_it_merges_serves_and_checks_in_this_order(deployment: Deployment) -> None:
    started = [event["step"] for event in deployment.first.of("step.started")]
    finished = [event["step"] for event in deployment.first.of("step.finished")]
    assert started == finished == ["merge", "serve", "check"]


def test_every_line_of_json_is_an_event_and_is_in_the_runs_record(deployment: Deployment) -> None:
    events = deployment.first.events
    assert [json.loads(json.dumps(to_dict(from_dict(event)))) for event in events] == events
    folder = Path(deployment.first.of("run.started")[0]["directory"])
    record = (folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in record] == events


def test_vllm_quantizes_by_bitsandbytes_as_it_loads(deployment: Deployment) -> None:
    folder = Path(deployment.first.of("run.started")[0]["directory"])
    assert "quantization=bitsandbytes" in (folder / "serve.log").read_text()


def test_the_loading_of_weights_is_told_as_it_happens(deployment: Deployment) -> None:
    phases = [e["phase"] for e in deployment.first.of("step.phase") if e["step"] == "serve"]
    assert "loading weights" in phases
    progress = [e for e in deployment.first.of("step.progress") if e["step"] == "serve"]
    assert (progress[-1]["done"], progress[-1]["unit"]) == (1, "shards")


def test_the_adapter_shows_in_the_answer(deployment: Deployment) -> None:
    example = json.loads((deployment.demo / "demo.json").read_text())["example"]
    (answer,) = deployment.first.of("server.answered")
    # The beginning: further on, the rounding to 4 bit may turn to another word.
    assert answer["text"].split()[:2] == example["adapter"].split()[:2]
    assert answer["text"].split()[:2] != example["base"].split()[:2]


def test_vllms_own_figures_stand_beside_the_estimate(deployment: Deployment) -> None:
    measured = {event["name"]: event for event in deployment.first.of("measured")}
    assert measured["KV cache"]["value"] == measured["KV cache"]["predicted"]
    assert measured["RAM of vLLM"]["predicted"] > 0
    assert math.isfinite(measured["perplexity"]["value"])


def test_the_next_estimate_is_nearer_to_what_was_measured(deployment: Deployment) -> None:
    (ram,) = [e for e in deployment.first.of("measured") if e["name"] == "RAM of vLLM"]
    record = (deployment.home.path / "observations.jsonl").read_text().splitlines()
    seen = json.loads(record[0])
    assert seen["outcome"] == "ok"
    assert seen["measured"]["peak"] == ram["value"]
    assert seen["expected"]["predicted"]["kv_tokens"] == seen["measured"]["kv_tokens"]
    ended = deployment.run("--check", "--json")
    estimate = json.loads(ended.out)["estimate"]
    assert "measured in" in estimate["sources"]["overhead"]
    before, after = (abs(x - ram["value"]) for x in (ram["predicted"], estimate["total_bytes"]))
    assert after < before or after < 0.02 * ram["value"]


def test_nothing_of_it_is_left(deployment: Deployment) -> None:
    assert deployment.home.processes() == {}
    assert can_be_bound(deployment.port)
    assert deployment.home.unfinished == []


def test_the_artifact_is_whole_and_says_how_it_was_made(deployment: Deployment) -> None:
    made = {path.name: read_artifact(path) for path in deployment.home.artifacts}
    assert all(made.values())
    record = next(artifact.record for artifact in made.values() if artifact)
    assert record["inputs"]["base"]
    assert record["inputs"]["adapter"]
    assert record["made"]["proof"]["untouched_identical"] > 0


# The second run ----------------------------------------------------------------------------------


def test_replayed_it_serves_until_stopped_and_merges_nothing(deployment: Deployment) -> None:
    served = deployment.serve(f"serve.api_key_env={KEY}", **{KEY: KEY_VALUE})
    (first,) = deployment.first.of("server.answered")
    try:
        assert served.complete(first["prompt"], 16) == first["text"]
        body = {"model": served.model, "prompt": first["prompt"], "max_tokens": 1}
        assert served.post("/completions", body, key="sk-wrong") == 401
        commands = "\n".join(deployment.home.processes().values())
        assert "api_server" in commands or "vllm" in commands
        assert KEY_VALUE not in commands
        shared = deployment.home.shared_memory()
    finally:
        ended = served.running.stop(signal.SIGTERM)
    assert ended.exit_code == 0, ended.text
    assert [event["step"] for event in ended.of("step.reused")] == ["merge"]
    assert [event["step"] for event in ended.of("step.started")] == ["serve", "check"]
    assert deployment.home.processes() == {}
    assert can_be_bound(served.port)
    assert [path for path in shared if path.exists()] == []
    folder = Path(ended.of("run.started")[0]["directory"])
    written = "".join(path.read_text() for path in folder.iterdir() if path.is_file())
    assert KEY_VALUE not in written + ended.out + ended.err


# What changes the artifact -----------------------------------------------------------------------


class Prepared:
    """Runs of ``--prepare-only`` on copies of one deployment, each in the same artifact store."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        for name in ("base", "adapter"):
            shutil.copytree(deployment.folder / name, folder / name)
        for file in (deployment.profile, deployment.text):
            shutil.copy(file, folder)

    def run(self, *arguments: str) -> Ended:
        profile = self.folder / "prod.toml"
        ended = self.home.run("--profile", profile, "--prepare-only", "--json", *arguments)
        assert ended.exit_code == 0, ended.text
        return ended

    def made(self, *arguments: str) -> str:
        """The folder that a run merged into; the run must have merged."""
        ended = self.run(*arguments)
        assert [event["step"] for event in ended.of("step.started")] == ["merge"]
        assert ended.of("step.reused") == []
        path: str = ended.of("step.finished")[0]["result"]["path"]
        return path


@pytest.fixture(scope="module")
def prepared(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(deployment, tmp_path_factory.mktemp("prepared"))


def change_one_byte(weights: Path) -> None:
    """The lowest bit of the last value of the last tensor."""
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1
    weights.write_bytes(content)


def test_each_change_of_an_input_makes_an_artifact_of_its_own(prepared: Prepared) -> None:
    first = prepared.made()
    prepared_again = prepared.run()
    assert [event["artifact"] for event in prepared_again.of("step.reused")] == [first]
    assert prepared_again.of("step.started") == []

    by_logits = prepared.made("--set", "merge.verify=logits")
    change_one_byte(prepared.folder / "adapter/adapter_model.safetensors")
    other_adapter = prepared.made()
    change_one_byte(prepared.folder / "base/model.safetensors")
    other_base = prepared.made()

    made = {first, by_logits, other_adapter, other_base}
    assert {str(path) for path in prepared.home.artifacts} == made
    assert len(made) == 4
    assert prepared.home.unfinished == []
    assert prepared.home.processes() == {}


# Looking without doing -----------------------------------------------------------------------------


def test_check_says_what_differs_since_the_profile_was_saved(
    deployment: Deployment, tmp_path: Path
) -> None:
    for name in ("base", "adapter"):
        shutil.copytree(deployment.folder / name, tmp_path / name)
    shutil.copy(deployment.text, tmp_path)
    profile = Path(shutil.copy(deployment.profile, tmp_path))
    home = Home(tmp_path / "home")
    saved = json.loads(home.run("inspect", tmp_path / "adapter", "--json").out)["fingerprint"]
    with profile.open("a") as text:
        text.write(f'[recorded]\nadapter_fingerprint = "{saved}"\n')
    assert "differs nothing" in home.run("--profile", profile, "--check").text

    change_one_byte(tmp_path / "adapter/adapter_model.safetensors")
    ended = home.run("--profile", profile, "--check")
    assert ended.exit_code == 0, ended.text
    assert f"differs adapter content was {saved}, is " in ended.text
    assert home.artifacts == []


def test_check_knows_what_was_made_before(deployment: Deployment) -> None:
    assert "merge adapter into base (made before: reused)" in deployment.run("--check").text


def test_dry_run_prints_commands_that_a_shell_can_read(deployment: Deployment) -> None:
    ended = deployment.run("--dry-run")
    assert ended.exit_code == 0, ended.text
    lines = [line for line in ended.out.splitlines() if not line.startswith("#")]
    merge, serve, _ = lines
    (artifact,) = [str(path) for path in deployment.home.artifacts]
    words = shlex.split(merge)
    again = deployment.home.run(*words[words.index("merge") :], "--json")
    assert [event["artifact"] for event in again.of("step.reused")] == [artifact]
    words = shlex.split(serve)
    assert words[words.index("--model") + 1] == artifact
    assert words[words.index("--quantization") + 1] == "bitsandbytes"
