"""The `quantui` command on small folders, with an interpreter that only looks like an engine."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from checkpoint_folders import adapter_files, model_files, write
from hollow_engine import make_hollow_engine

from quantui.cli import main
from quantui.domain.errors import ExitCode
from quantui.domain.hardware import Gpu, HardwareReport
from quantui.runtime.profile_file import load_profile

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32}


@pytest.fixture
def quantui(capsys, monkeypatch):
    """Runs a command; gives (exit code, stdout, stderr). Paths of any length stay in one line."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def folders(tmp_path):
    base = write(tmp_path / "tiny-base", model_files(**HEADS))
    lora = write(tmp_path / "tiny-lora", adapter_files(base=str(base)))
    return base, lora


@pytest.fixture
def profile(tmp_path, folders):
    base, lora = folders
    python = make_hollow_engine(tmp_path / "hollow").python
    path = tmp_path / "prod.toml"
    path.write_text(
        f"schema = 1\n[model]\nid = '{base}'\n[adapter]\nid = '{lora}'\n"
        f"[engine]\nname = 'vllm-cpu'\npython = '{python}'\n[serve]\nport = 0\n"
    )
    return path


def test_without_a_terminal_there_is_no_wizard_but_help(quantui):
    code, out, _ = quantui()
    assert code == 0
    assert "the wizard" in out


def test_a_described_machine_needs_a_terminal_for_the_wizard(quantui, tmp_path):
    code, _, err = quantui("--hardware", tmp_path / "machine.json")
    assert code == ExitCode.BAD_INPUT
    assert "needs a terminal" in err


def test_the_wizards_machine_is_not_given_to_a_command(quantui, tmp_path):
    code, _, err = quantui("--hardware", tmp_path / "machine.json", "methods")
    assert code == ExitCode.BAD_INPUT
    assert "after the command" in err


def test_help_lists_every_exit_code(quantui):
    code, out, _ = quantui("--help")
    assert code == 0
    listed = out[out.index("exit codes:") :]
    for exit_code in ExitCode:
        assert f"  {int(exit_code):<4} " in listed, exit_code


def test_help_lists_every_command(quantui):
    _, out, _ = quantui("--help")
    for name in ("demo", "init", "inspect", "doctor", "engine", "--profile"):
        assert name in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["unheard-of"],
        ["--check"],
        ["--set", "serve.port=1"],
        ["--profile"],
        ["--profile", "x.toml", "--check", "--dry-run"],
        ["--profile", "x.toml", "doctor"],
        ["init", "--unheard-of"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_2_and_no_traceback(quantui, arguments):
    code, out, err = quantui(*arguments)
    assert code == ExitCode.BAD_INPUT
    assert err.splitlines()[-1].startswith("quantui")
    assert "Traceback" not in out + err


def test_options_of_a_replay_without_a_profile_say_where_they_belong(quantui):
    assert "--profile FILE" in quantui("--dry-run")[2]


def test_an_error_is_told_on_stderr_and_its_code_is_the_exit_code(quantui, tmp_path):
    code, out, err = quantui("--profile", tmp_path / "no.toml")
    assert (code, out) == (ExitCode.BAD_INPUT, "")
    assert "error" in err
    assert "fix" in err


def test_an_error_can_be_json(quantui, tmp_path):
    _, _, err = quantui("--profile", tmp_path / "no.toml", "--json")
    assert json.loads(err)["code"] == "profile.not-found"


def test_check_tells_steps_memory_and_what_differs(quantui, profile):
    code, out, _ = quantui("--profile", profile, "--check")
    assert code == 0
    words = " ".join(out.split())
    for part in ("vllm-cpu, vLLM 0.32.0", "merge tiny-lora into tiny-base", "serve with vLLM",
                 "context 2048", "differs nothing"):  # fmt: skip
        assert part in words


def test_check_tells_the_verdict_on_the_memory(quantui, profile):
    _, out, _ = quantui("--profile", profile, "--check")
    (line,) = [line for line in out.splitlines() if line.startswith("verdict ")]
    assert line.split()[1].rstrip(";") in ("fits", "tight")
    _, out, _ = quantui("--profile", profile, "--check", "--json")
    assert json.loads(out)["estimate"]["verdict"] in ("fits", "tight")


def test_check_as_json_is_one_document(quantui, profile):
    _, out, _ = quantui("--profile", profile, "--check", "--json")
    told = json.loads(out)
    assert [step["id"] for step in told["steps"]] == ["merge", "serve", "check"]
    assert told["estimate"]["max_model_len"] == 2048
    assert told["differences"] == []


def test_check_tells_what_is_written_to_each_disk_and_what_is_free(quantui, profile):
    _, out, _ = quantui("--profile", profile, "--check", "--json")
    (disk,) = json.loads(out)["disks"]
    assert disk["needed_bytes"] > sum(write["bytes"] for write in disk["writes"]) > 0
    assert disk["free_bytes"] > disk["needed_bytes"]
    assert disk["error"] is None


def test_check_of_a_plan_that_a_disk_cannot_hold_says_so_and_exits_with_3(
    quantui, profile, monkeypatch
):
    monkeypatch.setattr("quantui.runtime.plan_room._free", lambda _: 1 << 20)
    monkeypatch.setattr("quantui.runtime.caches.room._free_bytes", lambda _: 1 << 20)
    code, out, _ = quantui("--profile", profile, "--check")
    assert code == ExitCode.DOES_NOT_FIT
    assert "too little: " in out
    assert "of 1.0 MiB free" in out
    code, out, _ = quantui("--profile", profile, "--check", "--json")
    assert code == ExitCode.DOES_NOT_FIT
    assert json.loads(out)["disks"][0]["error"]["code"] == "disk.too-little"


def test_check_tells_what_is_not_as_it_was_saved(quantui, profile):
    profile.write_text(profile.read_text() + "[recorded]\nvllm_version = '0.31.0'\n")
    _, out, _ = quantui("--profile", profile, "--check")
    assert "vLLM was 0.31.0, is 0.32.0" in out


def test_a_dry_run_prints_commands_that_a_shell_understands(quantui, profile, folders):
    _, out, _ = quantui("--profile", profile, "--dry-run", "--set", "serve.served_name=it's mine")
    commands = [line for line in out.splitlines() if line and not line.startswith("#")]
    merge, serve, check = commands
    words = shlex.split(merge)
    at = words.index("merge")
    assert words[at : at + 4] == ["merge", *map(str, folders), "--python"]
    words = shlex.split(serve)
    assert words[words.index("--served-model-name") + 1] == "it's mine"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "/v1/completions" in check


def test_a_dry_run_and_a_check_write_nothing_and_start_nothing(quantui, profile, own_home):
    for mode in ("--dry-run", "--check"):
        assert quantui("--profile", profile, mode)[0] == 0
    assert not (own_home / "runs").exists()
    assert not (own_home / "artifacts").exists()


def test_set_changes_an_option_for_this_time_only(quantui, profile):
    before = profile.read_text()
    _, out, _ = quantui("--profile", profile, "--dry-run", "--set", "serve.max_model_len=512")
    assert "--max-model-len 512" in out
    assert profile.read_text() == before


def test_preparing_only_has_no_server(quantui, profile, tmp_path):
    # The hollow engine cannot merge: that the step fails tells that it was the only one.
    code, _, err = quantui("--profile", profile, "--prepare-only")
    assert code == ExitCode.ENGINE
    assert "merge tiny-lora" in err
    assert "serve with vLLM" not in err


def test_init_writes_a_profile_that_reads_back_and_can_be_checked(quantui, folders, tmp_path):
    base, lora = folders
    path = tmp_path / "new.toml"
    code, out, _ = quantui(
        "init", base, "--adapter", lora, "--method", "bitsandbytes", "--out", path
    )
    assert code == 0
    assert f"quantui --profile {path} --check" in " ".join(out.split())
    draft = load_profile(path)
    assert (draft.model.id, draft.adapter.id) == (str(base), str(lora))
    assert draft.quantization.method == "bitsandbytes"


def test_init_without_a_method_takes_the_recommended_one_and_says_why(
    quantui, tmp_path, monkeypatch
):
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32}
    base = write(tmp_path / "base", model_files(hidden=1024, intermediate_size=2048, **sizes))
    card = Gpu(
        0, name="NVIDIA L4", total_bytes=23 << 30, free_bytes=23 << 30, compute_capability=(8, 9)
    )
    monkeypatch.setattr(
        "quantui.runtime.suggestion.probe_hardware", lambda: HardwareReport(gpus=(card,))
    )
    path = tmp_path / "new.toml"
    code, out, _ = quantui("init", base, "--out", path, "--use-case", "smallest-memory")
    assert code == 0
    method = load_profile(path).quantization.method
    assert method != "none"
    assert f"method:  {method} (" in out
    assert "the best for smallest-memory" in out
    assert "Weights" in out
    assert "--method takes another" in out


def test_init_takes_a_method_that_is_named_without_a_word(quantui, tmp_path, folders):
    path = tmp_path / "new.toml"
    _, out, _ = quantui("init", folders[0], "--out", path, "--method", "none")
    assert load_profile(path).quantization.method == "none"
    assert "method:" not in out


def test_init_finds_the_base_that_the_adapter_names(quantui, folders, tmp_path):
    base, lora = folders
    assert quantui("init", "--adapter", lora, "--out", tmp_path / "new.toml")[0] == 0
    assert load_profile(tmp_path / "new.toml").model.id == str(base)


def test_init_does_not_overwrite_unless_forced(quantui, folders, tmp_path):
    base, _ = folders
    path = tmp_path / "new.toml"
    path.write_text("mine")
    assert quantui("init", base, "--out", path)[0] == ExitCode.BAD_INPUT
    assert path.read_text() == "mine"
    assert quantui("init", base, "--out", path, "--force")[0] == 0
    assert load_profile(path).model.id == str(base)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], ExitCode.BAD_INPUT),
        (["/nonexistent/model"], ExitCode.NOT_FOUND),
        (["BASE", "--method", "bitsandbyte"], ExitCode.BAD_INPUT),
        (["BASE", "--out", "FOLDER", "--force"], ExitCode.BAD_INPUT),
    ],
    ids=["nothing", "no folder", "no method", "no file"],
)
def test_init_refuses_what_is_wrong_and_writes_nothing(quantui, folders, tmp_path, arguments, code):
    places = {"BASE": folders[0], "FOLDER": tmp_path}
    before = sorted(tmp_path.iterdir())
    out = [] if "--out" in arguments else ["--out", tmp_path / "new.toml"]
    ended, _, err = quantui("init", *(places.get(word, word) for word in arguments), *out)
    assert ended == code
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before
