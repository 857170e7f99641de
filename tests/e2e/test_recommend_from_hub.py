"""``quantui recommend`` and ``quantui fit`` for a Hub id, on a Hub of the loopback: nothing but headers is fetched."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fixtures import hub_server
from fixtures.checkpoint_folders import model_files
from fixtures.described_machines import L4, machine
from fixtures.quantui_command import COMMAND

from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

BASE = "owner/Base-1B"
COPY = "someone/Base-1B-AWQ"
SIZES = {"hidden": 512, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32,
         "intermediate_size": 1024}  # fmt: skip
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


@pytest.fixture
def hub():
    running, stop = hub_server.start()
    running.repositories[BASE] = hub_server.Repository(model_files(**SIZES))
    running.repositories[COPY] = hub_server.Repository(
        model_files(**SIZES, quantization_config=AWQ),
        tags=(f"base_model:quantized:{BASE}",),
        listed={"downloads": 4321},
    )
    yield running
    stop()


@pytest.fixture
def quantui(hub, tmp_path: Path):
    where = machine(tmp_path, L4)

    def run(*arguments: object) -> tuple[int, str, str]:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments), "--hardware", str(where)],
            env=hub_server.environment(hub, tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def choice(document: dict[str, Any], method: str) -> dict[str, Any]:
    (found,) = [one for one in document["choices"] if one["method"] == method]
    return found


def test_a_published_copy_is_a_choice_with_its_publisher_size_and_downloads(quantui):
    _, out, err = quantui("recommend", BASE, "--json")
    assert err == ""
    found = choice(json.loads(out), "awq")
    assert found["way"] == "variant"
    assert found["ready"] is True
    variant = found["variant"]
    assert (variant["ref"], variant["publisher"], variant["downloads"]) == (COPY, "someone", 4321)
    assert found["cost"]["download_bytes"] == variant["size_bytes"] > 0
    assert COPY in " ".join(found["reasons"])


def test_no_weights_are_fetched(quantui, hub):
    size = sum(map(len, hub.repositories[BASE].files.values()))
    for command in ("recommend", "fit"):
        ended, _, err = quantui(command, BASE)
        assert (ended, err) == (0, "")
    assert hub.sent_bytes < size / 4


def test_a_download_that_is_needed_is_told_as_cost(quantui, hub):
    _, out, _ = quantui("recommend", BASE, "--json")
    weights = len(hub.repositories[BASE].files["model.safetensors"])
    assert choice(json.loads(out), "none")["cost"]["download_bytes"] >= weights


def test_offline_only_this_machine_is_searched(quantui, hub):
    ended, _, err = quantui("recommend", BASE, "--offline")
    assert ended == ExitCode.NOT_FOUND
    assert BASE in err
    assert hub.requests == []


def test_a_hub_that_lists_nothing_leaves_the_other_choices_and_a_note(quantui, hub):
    hub.listing_failure = (503, "", "unavailable")
    ended, out, _ = quantui("recommend", BASE, "--json")
    document = json.loads(out)
    assert ended == 0
    assert document["choices"]
    assert all(one["variant"] is None for one in document["choices"])
    assert "The Hub was not searched" in " ".join(document["notes"])


def test_the_next_command_names_the_published_copy(quantui):
    _, out, _ = quantui("recommend", BASE, "--use-case", "easy-start", "--json")
    best = json.loads(out)["choices"][0]
    _, text, _ = quantui("recommend", BASE, "--use-case", "easy-start")
    ref = COPY if best["variant"] else BASE
    assert f"init {ref} " in text


def test_a_checkpoint_that_is_quantized_is_fitted_by_any_name_of_its_format(quantui):
    for name in ("none", "awq", "auto_awq", "gptq"):
        ended, out, _ = quantui("fit", COPY, "--method", name, "--json")
        found = json.loads(out)
        assert (ended, found["verdict"]) == (0, "fits"), found["reasons"]
        assert found["method"] == ("none" if name == "none" else "awq")
    assert "stored in awq" in " ".join(found["notes"])
    ended, out, _ = quantui("fit", COPY, "--method", "fp8_per_tensor", "--json")
    assert (ended, json.loads(out)["verdict"]) == (ExitCode.DOES_NOT_FIT, "unsupported")
