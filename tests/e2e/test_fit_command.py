"""``quantui fit``: whether a model fits on a machine that is described, what it says, how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
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
from fixtures.quantui_command import Home

from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.quantui_command import Ended

SIZES = {
    "weights_bytes_per_gpu", "kv_cache_bytes_per_gpu", "kv_cache_tokens", "kv_bytes_per_token",
    "peak_activation_bytes", "cuda_graph_bytes", "context_bytes", "lora_bytes",
    "other_processes_bytes", "max_context", "safe_context", "users", "max_users", "max_model_len",
    "missing_bytes", "tensor_parallel", "pipeline_parallel", "max_num_seqs",
    "max_num_batched_tokens", "schema",
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "quantui_version": str, "model": dict, "adapter": type(None), "method": str,
    "method_title": str, "verdict": str, "reasons": list, "cautions": list,
    "smallest_change": (dict, type(None)), "utilization": (float, type(None)), "figures": dict,
    "context": (int, type(None)), "kv_dtype": str, "dtype": str, "eager": bool, "gpus": list,
    "on_cpu": bool, "vllm_version": str, "vllm_version_origin": str, "hardware": dict,
    "notes": list,
}  # fmt: skip
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
    """What --json printed; nothing may stand beside it."""
    assert ended.err == ""
    value: dict[str, Any] = json.loads(ended.out)
    return value


def test_the_document_has_every_key_with_its_type(home, qwen, l4):
    found = document(home.run("fit", qwen, "--hardware", l4, "--context", "8192", "--json"))
    assert set(found) == SIZES | set(OTHERS)
    for key in SIZES:
        assert type(found[key]) is int, key
    for key, kind in OTHERS.items():
        assert isinstance(found[key], kind), key
    for figure in found["figures"].values():
        assert {name: type(value) for name, value in figure.items()} == {
            "bytes": int, "low": int, "high": int, "formula": str, "source": str,
        }  # fmt: skip
        assert figure["low"] <= figure["bytes"] <= figure["high"]


def test_a_folder_with_only_its_config_is_enough(home, qwen, l4):
    found = document(home.run("fit", qwen, "--hardware", l4, "--context", "8192", "--json"))
    assert found["model"]["parameters"] == 7_615_616_512
    assert found["verdict"] == "fits"
    assert abs(found["weights_bytes_per_gpu"] / (2 * 7_615_616_512) - 1) < 0.01
    # 28 layers x 2 x 4 heads x 128 x 2 B
    assert found["kv_bytes_per_token"] == 57_344
    assert found["hardware"]["simulated"] is True


def test_four_bit_weights_take_less_than_a_third(home, qwen, l4):
    sizes = [
        document(home.run("fit", qwen, "--method", m, "--hardware", l4, "--json"))[
            "weights_bytes_per_gpu"
        ]
        for m in ("none", "awq")
    ]
    assert sizes[1] < 0.4 * sizes[0]


def test_what_does_not_fit_is_answered_with_its_own_exit_code(home, tmp_path, l4):
    large = model(tmp_path, LLAMA_70B)
    ended = home.run("fit", large, "--hardware", l4, "--json")
    found = document(ended)
    assert ended.exit_code == ExitCode.DOES_NOT_FIT
    assert found["verdict"] == "does not fit"
    assert found["missing_bytes"] > 100 * GIB


def test_the_change_that_is_offered_makes_it_fit(home, qwen, tmp_path):
    small = machine(tmp_path, card("NVIDIA GeForce RTX 3060", 11.6, "8.6"))
    ended = home.run("fit", qwen, "--hardware", small, "--context", "8192", "--json")
    assert ended.exit_code == ExitCode.DOES_NOT_FIT
    change = document(ended)["smallest_change"]["option"].split()
    again = home.run("fit", qwen, "--hardware", small, "--context", "8192", *change, "--json")
    assert document(again)["verdict"] == "fits"


def test_a_method_the_card_cannot_run_is_unsupported_in_its_terms(home, qwen, tmp_path):
    old = machine(tmp_path, V100)
    ended = home.run("fit", qwen, "--hardware", old, "--json")
    found = document(ended)
    assert (ended.exit_code, found["verdict"]) == (ExitCode.DOES_NOT_FIT, "unsupported")
    assert "7.0" in " ".join(found["reasons"])


def test_more_gpus_than_there_are_is_unsupported(home, qwen, l4):
    found = document(home.run("fit", qwen, "--hardware", l4, "--tp", "2", "--json"))
    assert found["verdict"] == "unsupported"
    assert found["reasons"][0] == "2 GPUs are needed, 1 can be used."


def test_tensor_parallel_divides_the_weights(home, tmp_path):
    large = model(tmp_path, LLAMA_70B)
    four = machine(tmp_path, *[A100] * 4)
    found = document(home.run("fit", large, "--hardware", four, "--tp", "4", "--json"))
    assert found["verdict"] == "fits"
    assert found["gpus"] == [0, 1, 2, 3]
    assert abs(found["weights_bytes_per_gpu"] / (2 * 70_553_706_496 / 4) - 1) < 0.02


def test_only_the_named_gpus_are_counted_with(home, qwen, tmp_path):
    two = machine(tmp_path, L4, A100)
    found = document(home.run("fit", qwen, "--hardware", two, "--gpus", "0", "--json"))
    assert found["gpus"] == [0]
    assert [gpu["name"] for gpu in found["hardware"]["gpus"]] == ["NVIDIA L4"]
    best = document(home.run("fit", qwen, "--hardware", two, "--json"))
    assert best["gpus"] == [1]


def test_without_gpus_the_cpu_serves_from_the_ram(home, qwen, tmp_path):
    found = document(home.run("fit", qwen, "--hardware", machine(tmp_path), "--json"))
    assert found["on_cpu"] is True
    assert found["utilization"] is None
    assert found["verdict"] in ("fits", "tight")
    with_gpu = machine(tmp_path, L4, name="gpu.json")
    again = document(home.run("fit", qwen, "--hardware", with_gpu, "--gpus", "none", "--json"))
    assert again["on_cpu"] is True


def test_lora_slots_take_memory_beside_the_weights(home, qwen, l4):
    found = document(
        home.run(
            "fit", qwen, "--hardware", l4, "--max-loras", "4", "--max-lora-rank", "60", "--json"
        )
    )
    assert found["lora_bytes"] > 0


def test_the_version_of_vllm_can_be_asked_for(home, qwen, l4):
    found = document(home.run("fit", qwen, "--hardware", l4, "--vllm-version", "v0.30.1", "--json"))
    assert (found["vllm_version"], found["vllm_version_origin"]) == ("0.30.1", "as asked for")
    unasked = document(home.run("fit", qwen, "--hardware", l4, "--json"))
    assert "installs" in unasked["vllm_version_origin"]


def test_what_doctor_says_of_this_machine_can_be_piped_in(home, qwen):
    doctor = home.run("doctor", "--json")
    path = home.path / "doctor.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(doctor.out)
    described = document(home.run("fit", qwen, "--hardware", path, "--json"))
    assert described["hardware"]["simulated"] is True
    assert described["hardware"]["described_by"] == str(path)


@pytest.mark.parametrize("explain", [(), ("--explain",)])
@pytest.mark.parametrize("name", ["none", "awq", "fp8_dynamic"])
def test_the_text_fits_80_columns_without_colour(home, tmp_path, name, explain):
    large = model(tmp_path, LLAMA_70B, name="a-rather-long-name-of-a-model-folder-" * 3)
    where = machine(tmp_path, *[A100] * 8)
    ended = home.run(
        "fit", large, "--method", name, "--hardware", where, "--tp", "8", *explain, COLUMNS="200"
    )
    assert ended.err == ""
    assert max(map(len, ended.out.splitlines())) <= 80
    assert not [line for line in ended.out.splitlines() if line != line.rstrip()]
    assert "\x1b" not in ended.out
    for words in ("weights", "KV cache", "GiB", "not this one", "vLLM 0.32"):
        assert words in ended.out


def test_a_context_beyond_the_models_is_answered_with_the_longest_there_is(home, qwen, tmp_path):
    asked = ("fit", qwen, "--hardware", machine(tmp_path, A100), "--json", "--context")
    found = document(home.run(*asked, "131072"))
    assert found["verdict"] == "unsupported"
    assert found["smallest_change"]["option"] == "--context 32768"
    assert document(home.run(*asked, "32768"))["verdict"] == "fits"


def test_tokens_of_sliding_windows_are_not_multiplied_out(home, tmp_path):
    """Ten tokens in eleven layers are not ten times eleven once a window is full."""
    sliding = QWEN_7B | {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "sliding_window": 1024,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4
        + ["sliding_attention"] * 4,
    }
    gemma = model(tmp_path, sliding, name="gemma")
    told = home.run("fit", gemma, "--hardware", machine(tmp_path, A100)).text
    assert "tokens of at most" in told


def test_what_could_not_be_computed_is_said_to_be_unknown(home, qwen, tmp_path):
    told = home.run("fit", qwen, "--hardware", machine(tmp_path, {"name": "Foo 9000"})).text
    assert "Whether it fits is not computed: the memory of the device is not known." in told


def test_a_small_model_is_told_in_mib(home, tmp_path):
    small = model(tmp_path, QWEN_7B | {"hidden_size": 256, "num_hidden_layers": 2}, name="small")
    told = home.run("fit", small, "--hardware", machine(tmp_path, L4)).out
    heading = next(line for line in told.splitlines() if "memory of" in line)
    weights = next(line for line in told.splitlines() if line.startswith("  weights"))
    assert "MiB" in heading.split()
    assert float(weights.split()[1]) > 1


def test_a_fix_is_told_in_the_commands_own_options(home, tmp_path):
    gemma = model(
        tmp_path, QWEN_7B | {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}
    )
    t4 = machine(tmp_path, card("Tesla T4", 14.6, "7.5"))
    told = home.run("fit", gemma, "--hardware", t4).text
    assert "--dtype float32" in told
    assert "serve." not in told


@pytest.mark.parametrize(("version", "verdict"), [("0.9.1", "fits"), ("0.32", "unsupported")])
def test_a_v100_is_served_by_a_vllm_that_still_had_volta(home, qwen, tmp_path, version, verdict):
    where = machine(tmp_path, V100)
    asked = ("fit", qwen, "--hardware", where, "--vllm-version", version, "--context", "4096")
    assert document(home.run(*asked, "--json"))["verdict"] == verdict


def test_a_narrow_terminal_is_not_exceeded(home, qwen, l4):
    ended = home.run("fit", qwen, "--hardware", l4, COLUMNS="60")
    assert max(map(len, ended.out.splitlines())) <= 60


def test_explain_tells_formula_and_source_of_every_figure(home, qwen, l4):
    told = home.run("fit", qwen, "--hardware", l4, "--explain").text
    found = document(home.run("fit", qwen, "--hardware", l4, "--json"))
    for figure in found["figures"].values():
        assert " ".join(figure["source"].split()) in told
        assert " ".join(figure["formula"].split()) in told


def test_names_in_a_description_cannot_write_to_the_terminal(home, qwen, tmp_path):
    evil = {**L4, "name": "NVIDIA L4\x1b[2J\x1b]0;owned\x07\u202e"}
    ended = home.run("fit", qwen, "--hardware", machine(tmp_path, evil))
    assert not set(ended.out) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", "0"], "--context"),
        (["--context", "-5"], "--context"),
        (["--context", "nan"], "--context"),
        (["--users", "0"], "--users"),
        (["--users", "many"], "--users"),
        (["--tp", "0"], "--tp"),
        (["--pp", "1.5"], "--pp"),
        (["--utilization", "1.5"], "--utilization"),
        (["--utilization", "nan"], "--utilization"),
        (["--max-num-seqs", "0"], "--max-num-seqs"),
        (["--max-lora-rank", "9999"], "--max-lora-rank"),
        (["--kv-dtype", "fp7"], "--kv-dtype"),
        (["--dtype", "int3"], "--dtype"),
        (["--gpus", "x"], "--gpus"),
        (["--vllm-version", "newest"], "--vllm-version"),
        (["--method", "aqw"], "Did you mean `awq`?"),
        (["--hardware", "/nowhere/machine.json"], "/nowhere/machine.json"),
    ],
)
def test_nonsense_is_one_error_that_names_the_option(home, qwen, arguments, words):
    ended = home.run("fit", qwen, *arguments)
    assert ended.exit_code == ExitCode.BAD_INPUT
    assert ended.out == ""
    assert words in ended.err
    assert ended.err.count("error") == 1
    assert "Traceback" not in ended.err


def test_an_error_with_json_is_json_on_stderr(home, qwen):
    ended = home.run("fit", qwen, "--context", "0", "--json")
    assert ended.out == ""
    assert json.loads(ended.err)["code"] == "arguments.bad-value"


def test_a_gpu_that_is_not_there_is_named(home, qwen, l4):
    ended = home.run("fit", qwen, "--hardware", l4, "--gpus", "3")
    assert ended.exit_code == ExitCode.DOES_NOT_FIT
    assert "--gpus names GPU 3." in ended.err


def test_a_model_that_is_not_there_is_named(home, l4, tmp_path):
    ended = home.run("fit", tmp_path / "nothing", "--hardware", l4)
    assert ended.exit_code == ExitCode.NOT_FOUND


def test_help_names_every_key_and_every_verdict(home):
    told = home.run("fit", "--help").text
    for verdict in ("fits", "tight", "does not fit", "unsupported"):
        assert verdict in told
    for key in ("weights_bytes_per_gpu", "kv_cache_tokens", "peak_activation_bytes", "max_context"):
        assert key in told
