"""`quantui inspect` as a person and as a script see it."""

from __future__ import annotations

import json

import pytest
from fixtures.checkpoint_folders import adapter_files, model_files, write

from quantui.cli.main import main


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_model_is_shown_within_80_columns(tmp_path, capsys):
    folder = write(tmp_path / "m", model_files(shards=2))
    assert main(["inspect", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "LlamaForCausalLM" in shown
    assert "2048 tokens" in shown
    assert "apache-2.0" in shown
    assert max(map(len, shown.splitlines())) <= 80


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
