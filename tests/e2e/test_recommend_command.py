"""``quantui recommend``: what it says of a described machine, its document, how it ends."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.checkpoint_folders import adapter_files, model_files, write
from fixtures.described_machines import (
    A100,
    GIB,
    L4,
    LLAMA_70B,
    QWEN_7B,
    V100,
    card,
    machine,
    model,
)
from fixtures.quantui_command import COMMAND, Home

from quantui.domain.choosing.use_cases import use_cases
from quantui.domain.errors import ExitCode
from quantui.domain.methods import methods

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.quantui_command import Ended

NULL = type(None)
DOCUMENT: dict[str, Any] = {
    "schema": int, "quantui_version": str, "model": dict, "adapter": (dict, NULL),
    "use_case": str, "context": int, "users": int, "choices": list, "refused": list,
    "nearest": (dict, NULL), "adapter_advice": (dict, NULL), "vllm_version": str,
    "vllm_version_origin": str, "hardware": dict, "notes": list,
}  # fmt: skip
CHOICE: dict[str, Any] = {
    "rank": int, "method": str, "title": str, "verdict": str, "way": str, "ready": bool,
    "needs": str, "tensor_parallel": int, "pipeline_parallel": int, "gpus": list, "on_cpu": bool,
    "max_context": (int, NULL), "max_users": (int, NULL), "memory": dict, "speed": dict,
    "quality": dict, "cost": dict, "serve_adapter": (str, NULL), "dtype": (str, NULL),
    "variant": (dict, NULL), "reasons": list, "cautions": list, "score": float,
    "score_parts": dict, "score_taken_off": dict,
}  # fmt: skip
REFUSED: dict[str, Any] = {
    "method": str, "title": str, "code": str, "reason": str, "reasons": list, "instead": list,
    "source": str,
}  # fmt: skip
COST = {"seconds": (int, float, NULL), "disk_bytes": int, "download_bytes": int, "steps": list}
"""Keys of the document with their types: changed only by adding."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"})


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return model(tmp_path, QWEN_7B)


@pytest.fixture
def l4(tmp_path: Path) -> Path:
    return machine(tmp_path, L4)


def document(ended: Ended) -> dict[str, Any]:
    assert ended.err == ""
    value: dict[str, Any] = json.loads(ended.out)
    return value


def has(found: dict[str, Any], keys: dict[str, Any]) -> None:
    assert set(found) == set(keys)
    for key, kind in keys.items():
        assert isinstance(found[key], kind), (key, found[key])


def test_the_document_has_every_key_with_its_type(home, qwen, l4):
    found = document(home.run("recommend", qwen, "--hardware", l4, "--json"))
    has(found, DOCUMENT)
    for choice in found["choices"]:
        has(choice, CHOICE)
        has(choice["cost"], COST)
        assert choice["verdict"] in ("fits", "tight")
        assert choice["reasons"]
        for key in ("weights_bytes_per_gpu", "kv_cache_bytes_per_gpu", "kv_cache_tokens"):
            assert type(choice["memory"][key]) is int
    for refusal in found["refused"]:
        has(refusal, REFUSED)
        assert refusal["reason"]


def test_every_method_is_either_ranked_or_refused_once(home, qwen, l4):
    found = document(home.run("recommend", qwen, "--hardware", l4, "--json"))
    names = [one["method"] for one in (*found["choices"], *found["refused"])]
    assert sorted(names) == sorted(methods())
    assert [choice["rank"] for choice in found["choices"]] == list(
        range(1, len(found["choices"]) + 1)
    )


def test_the_use_case_brings_its_own_context_and_users(home, qwen, l4):
    found = document(
        home.run("recommend", qwen, "--hardware", l4, "--use-case", "many-users", "--json")
    )
    use = use_cases()["many-users"]
    assert (found["use_case"], found["users"]) == ("many-users", use.users)
    asked = document(
        home.run("recommend", qwen, "--hardware", l4, "--context", "4K", "--users", "2", "--json")
    )
    assert (asked["context"], asked["users"]) == (4096, 2)


def test_fit_gives_the_numbers_that_recommend_shows(home, qwen, l4):
    load = ("--context", "8192", "--users", "4")
    found = document(home.run("recommend", qwen, "--hardware", l4, *load, "--json"))
    for choice in found["choices"][:3]:
        fit = document(
            home.run("fit", qwen, "--method", choice["method"], "--hardware", l4, *load, "--json")
        )
        for key in ("weights_bytes_per_gpu", "kv_cache_bytes_per_gpu", "kv_cache_tokens"):
            assert fit[key] == choice["memory"][key], (choice["method"], key)


def test_nothing_to_recommend_is_told_with_what_comes_closest(home, tmp_path):
    large = model(tmp_path, LLAMA_70B)
    small = machine(tmp_path, card("NVIDIA GeForce RTX 3060", 11.6, "8.6"))
    ended = home.run("recommend", large, "--hardware", small, "--json")
    found = document(ended)
    assert ended.exit_code == ExitCode.DOES_NOT_FIT
    assert found["choices"] == []
    assert found["nearest"]["missing_bytes"] > GIB
    text = home.run("recommend", large, "--hardware", small)
    assert text.exit_code == ExitCode.DOES_NOT_FIT
    assert "Nothing can be recommended here." in text.out
    assert "are missing" in text.out
    assert ".," not in text.out


def test_a_large_model_is_spread_over_the_cards_there_are(home, tmp_path):
    large = model(tmp_path, LLAMA_70B)
    found = document(
        home.run("recommend", large, "--hardware", machine(tmp_path, *[A100] * 4), "--json")
    )
    none = next(choice for choice in found["choices"] if choice["method"] == "none")
    assert none["tensor_parallel"] * none["pipeline_parallel"] == len(none["gpus"])
    assert len(none["gpus"]) in (2, 4)


def test_cards_that_vllm_cannot_use_leave_the_cpu_and_a_note(home, qwen, tmp_path):
    found = document(home.run("recommend", qwen, "--hardware", machine(tmp_path, V100), "--json"))
    assert all(choice["on_cpu"] for choice in found["choices"])
    assert "7.5" in " ".join(found["notes"])


def test_what_this_machine_refuses_is_told_before_what_every_machine_does(home, tmp_path):
    large = model(tmp_path, LLAMA_70B)
    told = home.run("recommend", large, "--hardware", machine(tmp_path, A100)).out
    refused = told.partition("Not here")[2].splitlines()
    places = {line.split()[0]: number for number, line in enumerate(refused) if line.split()}
    assert places["none"] < places["torchao"]


def test_an_adapter_is_merged_or_kept_beside_with_the_reason(home, tmp_path):
    base = write(
        tmp_path / "base", model_files(num_attention_heads=4, num_key_value_heads=2, vocab_size=32)
    )
    lora = write(tmp_path / "lora", adapter_files(base=str(base)))
    where = machine(tmp_path, L4)
    found = document(home.run("recommend", base, "--adapter", lora, "--hardware", where, "--json"))
    assert found["adapter_advice"]["mode"] in ("merge", "lora")
    assert found["adapter_advice"]["reasons"]
    # An adapter alone is enough: its base is the one that it names.
    alone = document(home.run("recommend", lora, "--hardware", where, "--json"))
    assert alone["model"]["ref"] == str(base)
    assert alone["adapter_advice"] == found["adapter_advice"]


def test_what_doctor_writes_is_read_from_a_pipe(home, qwen):
    doctor = home.run("doctor", "--json")
    done = subprocess.run(
        [*COMMAND, "recommend", str(qwen), "--hardware", "-", "--json"],
        input=doctor.out,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "QUANTUI_HOME": str(home.path)},
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["hardware"]["described_by"] == "-"
    assert found["hardware"]["simulated"] is True


@pytest.mark.parametrize("explain", [(), ("--explain",)])
@pytest.mark.parametrize("use", ["balanced", "train-further"])
def test_the_text_fits_80_columns_without_colour(home, tmp_path, use, explain):
    large = model(tmp_path, LLAMA_70B, name="a-rather-long-name-of-a-model-folder-" * 3)
    where = machine(tmp_path, *[A100] * 8)
    paths = {str(large), f"--hardware {where}"}
    ended = home.run(
        "recommend", large, "--hardware", where, "--use-case", use, *explain, COLUMNS="200"
    )
    assert ended.err == ""
    # A path is copied whole, however long.
    others = [line for line in ended.out.splitlines() if line.strip(" \\") not in paths]
    assert max(map(len, others)) <= 80
    assert not [line for line in ended.out.splitlines() if line != line.rstrip()]
    assert "\x1b" not in ended.out


def after_quantui(line):
    """The words of a command after its name: ``quantui`` where the shell finds it, else ``python -m quantui``."""
    words = shlex.split(line)
    return words[words.index("quantui") + 1 :]


def test_the_next_commands_can_be_copied(home, qwen, l4):
    told = home.run("recommend", qwen, "--hardware", l4).out.partition("\nNext\n")[2]
    init, fit = map(after_quantui, told.replace("\\\n", "").splitlines())
    assert (init[0], fit[0]) == ("init", "fit")
    assert home.run(*fit, "--json").exit_code == ExitCode.OK


def test_the_next_command_asks_for_as_many_users_as_are_held_at_once(home, qwen, l4):
    told = home.run(
        "recommend", qwen, "--hardware", l4, "--use-case", "many-users", "--users", "400"
    )
    assert "tight: it may not fit, or not all users at once" in told.text
    fit = told.out.partition("\nNext\n")[2].replace("\\\n", "").splitlines()[1]
    assert home.run(*after_quantui(fit), "--json").exit_code == ExitCode.OK


def test_slices_of_a_card_are_counted_not_listed(home, qwen, tmp_path):
    slices = {"mig_enabled": True, "mig": [{"profile": "1g.10gb", "total_bytes": 10 * GIB}] * 7}
    told = home.run("recommend", qwen, "--hardware", machine(tmp_path, A100 | slices)).text
    assert "7 slices of GPU 0" in told
    assert "0, 0" not in told


def test_the_text_names_the_machine_the_engine_and_the_use(home, qwen, l4):
    told = home.run("recommend", qwen, "--hardware", l4).text
    for words in ("not this one", "NVIDIA L4", "vLLM 0.32", "balanced", "tok/s", "Not here"):
        assert words in told


def test_explain_gives_the_source_of_every_choice_and_refusal(home, qwen, l4):
    told = home.run("recommend", qwen, "--hardware", l4, "--explain").text
    found = document(home.run("recommend", qwen, "--hardware", l4, "--json"))
    for choice in found["choices"]:
        source = " ".join(choice["memory"]["figures"]["weights"]["source"].split())
        assert source in told
    for refusal in found["refused"]:
        assert " ".join(refusal["reason"].split()) in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--use-case", "many-user"], "Did you mean `many-users`?"),
        (["--context", "0"], "--context"),
        (["--users", "-1"], "--users"),
        (["--gpus", "0,0"], "--gpus"),
        (["--vllm-version", "x"], "--vllm-version"),
        (["--hardware", "/nowhere/machine.json"], "/nowhere/machine.json"),
    ],
)
def test_nonsense_is_one_error_that_names_the_option(home, qwen, arguments, words):
    ended = home.run("recommend", qwen, *arguments)
    assert ended.exit_code == ExitCode.BAD_INPUT
    assert ended.out == ""
    assert words in ended.err
    assert ended.err.count("error") == 1


def test_help_lists_every_use_case(home):
    told = home.run("recommend", "--help").text
    for name in use_cases():
        assert name in told
