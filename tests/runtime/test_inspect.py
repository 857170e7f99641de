"""`quantui inspect` as a person and as a script see it."""

from __future__ import annotations

import json
import re

import pytest
from fixtures.checkpoint_folders import adapter_files, model_files, write

from quantui.cli.main import main


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_model_is_shown_within_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    folder = write(tmp_path / "m" / ("long" * 20), model_files(shards=2))
    assert main(["inspect", str(folder)]) == 0
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "LlamaForCausalLM" in shown
    assert "2048 tokens" in shown
    assert "apache-2.0" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_in_a_pipe_every_fact_is_one_line(tmp_path, capsys):
    folder = write(tmp_path / "m" / ("long" * 20), model_files(shards=2))
    assert main(["inspect", str(folder)]) == 0
    assert any(line.endswith(f"  {folder}") for line in capsys.readouterr().out.splitlines())


def test_an_adapter_is_recognized_and_its_evidence_shown(tmp_path, capsys):
    files = {**adapter_files(), "axolotl.yaml": b"adapter: qlora\nload_in_4bit: true\n"}
    assert main(["inspect", str(write(tmp_path / "a", files))]) == 0
    shown = capsys.readouterr().out
    assert "LORA" in shown
    assert "strong yes: axolotl.yaml: adapter: qlora" in " ".join(shown.split())


def test_json_carries_every_fact(tmp_path, capsys):
    files = {**adapter_files(), "README.md": b"---\nlicense: mit\n---\nTrained with QLoRA."}
    assert main(["inspect", str(write(tmp_path / "a", files)), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["kind"] == "adapter"
    assert value["tensor_count"] == 8
    assert value["four_bit"]["answer"] is True
    assert value["four_bit"]["evidence"][0]["strength"] == "weak"
    assert value["license"] == "mit"


def test_escape_sequences_in_a_checkpoint_do_not_reach_the_terminal(tmp_path, capsys):
    evil = "\x1b]0;owned\x07\x1b[31mred\u202e"
    files = adapter_files(base=evil, target_modules=[evil], task_type=evil)
    files["README.md"] = f"---\nlicense: {evil}\n---\nQLoRA {evil}".encode()
    assert main(["inspect", str(write(tmp_path / "a", files))]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "red" in shown


@pytest.mark.parametrize(
    ("files", "code"), [({}, 2), ({"config.json": b"{", "model.safetensors": b""}, 2), (None, 5)]
)
def test_errors_have_their_exit_code(tmp_path, capsys, files, code):
    if files is not None:
        (tmp_path / "m").mkdir()
        write(tmp_path / "m", files)
    assert main(["inspect", str(tmp_path / "m")]) == code
    assert "fix" in capsys.readouterr().err


def inspect(capsys, folder, *options):
    code = main(["inspect", str(folder), *options])
    return code, capsys.readouterr().out


PROOF = {
    "tensors_changed": 4,
    "tensors_untouched": 3,
    "adapter_tensors": 8,
    "proof": {"sampled_rows": 32, "correctly_rounded": 1.0},
    "method": "streamed",
    "delta_norms": {"model.layers.0.self_attn.q_proj.weight": 1.5},
}


def test_a_merged_model_shows_its_proof(tmp_path, capsys):
    files = {**model_files(), "merge_proof.json": json.dumps(PROOF).encode()}
    code, out = inspect(capsys, write(tmp_path / "m", files))
    words = " ".join(out.split())
    assert code == 0
    assert "merged 4 tensors changed, 3 untouched, all 8 of the adapter used" in words
    assert "largest change model.layers.0.self_attn.q_proj 1.5" in words
    _, out = inspect(capsys, tmp_path / "m", "--json")
    assert json.loads(out)["merge_proof"] == PROOF


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b"\xff",
        b'{"delta_norms": 3, "proof": [], "method": 1, "tensors_changed": "x"}',
        b'{"delta_norms": {"a": "b", "c": NaN, "d": null}, "seconds": 0, "bytes": 1}',
    ],
)
def test_a_proof_that_is_none_costs_nothing(tmp_path, capsys, proof):
    code, out = inspect(capsys, write(tmp_path / "m", {**model_files(), "merge_proof.json": proof}))
    assert code == 0
    assert "fingerprint" in out
    assert "merged" not in out


def test_escapes_in_a_proof_do_not_reach_the_terminal(tmp_path, capsys):
    evil = {**PROOF, "method": "\x1b[31mred", "delta_norms": {"\x1b]0;x\x07name": 1}}
    files = {**model_files(), "merge_proof.json": json.dumps(evil).encode()}
    _, out = inspect(capsys, write(tmp_path / "m", files))
    assert not {"\x1b", "\x07"} & set(out)


def test_a_folder_with_config_json_alone_is_shown_when_asked(tmp_path, capsys):
    config = {"config.json": model_files(vocab_size=32, intermediate_size=32)["config.json"]}
    folder = str(write(tmp_path / "m", config))
    assert main(["inspect", folder]) == 2
    assert "--sketch" in capsys.readouterr().err
    assert main(["inspect", folder, "--sketch"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "complete no: a sketch" in shown
    assert "weights not here" in shown
    assert "(computed from config.json)" in shown


def test_attention_is_shown_by_kind(tmp_path, capsys):
    config = {
        "model_type": "gemma2",
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 1024,
    }
    folder = write(tmp_path / "m", {"config.json": json.dumps(config).encode()})
    assert main(["inspect", str(folder), "--sketch"]) == 0
    shown = capsys.readouterr().out
    assert "2 layers sliding of 1024 tokens: 4 K/V heads of 256" in shown
    assert "2 layers full: 8 heads, 4 K/V heads of 256" in shown


def test_stored_quantization_is_told_in_detail(tmp_path, capsys):
    stored = {"quant_method": "awq", "bits": 4, "group_size": 128}
    files = {"config.json": model_files(quantization_config=stored)["config.json"]}
    assert main(["inspect", str(write(tmp_path / "m", files)), "--sketch"]) == 0
    assert "awq, 4 bit, groups of 128" in capsys.readouterr().out


def test_json_carries_the_shape_and_the_parameters_by_role(tmp_path, capsys):
    folder = write(tmp_path / "m", model_files())
    assert main(["inspect", str(folder), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["shape"]["layers"] == 2
    assert sum(value["parameters_by_role"].values()) == value["parameters"]
