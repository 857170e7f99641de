"""The Python calls with a real engine: merged once, reused, made anew when an input changes, stopped clean."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures import hub_server

import quantui
from quantui import QuantuiError
from quantui.domain.events import RunEvent, StepReused, StepStarted
from quantui.runtime import keeper
from quantui.runtime.process import MARK

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = pytest.mark.engine


@pytest.fixture
def adapter(demo: Path, tmp_path: Path) -> Path:
    """The demo's adapter, which names the demo's base."""
    folder = tmp_path / "json-lora"
    shutil.copytree(demo / "adapter", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(demo / "base")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def change_a_weight(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    # The lowest bit of the last tensor's first float: the smallest change that can be made.
    content[-4] ^= 1
    path.write_bytes(content)


def runs_of(home: Path) -> list[str]:
    return [path.name for path in (home / "runs").iterdir()]


def left_of(home: Path) -> list[int]:
    """Processes that still belong to a run of this quantui."""
    return [pid for run in runs_of(home) for pid in keeper.marked(f"{MARK}={run}:", prefix=True)]


def artifacts_of(home: Path) -> list[str]:
    return [path.name for path in (home / "artifacts").iterdir() if path.suffix != ".lock"]


def test_a_merged_model_is_made_once_and_anew_when_its_adapter_changes(
    demo: Path, adapter: Path, engine: Engine, own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = quantui.prepare_model_for_vllm(adapter, engine_python=engine.python)
    assert first.adapter_merged
    assert first.source == f"{demo / 'base'} + {adapter}"
    assert (Path(first) / "model.safetensors").exists()
    assert first.engine_args["quantization"] == "bitsandbytes"
    assert first.engine_args["max_model_len"] == first.estimate.max_model_len
    assert capfd.readouterr() == ("", "")

    # Named base, another call, another thread: the same artifact, and no merge.
    events: list[RunEvent] = []
    found: list[str] = []

    def again() -> None:
        found.append(
            quantui.get_or_create_merged_model(
                demo / "base", adapter, engine_python=engine.python, on_event=events.append
            )
        )

    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    assert found == [first]
    assert any(isinstance(event, StepReused) for event in events)
    assert not any(isinstance(event, StepStarted) for event in events)

    change_a_weight(adapter)
    plain = quantui.prepare_model_for_vllm(adapter, False, engine_python=engine.python)
    assert plain != first
    assert "quantization" not in plain.engine_args
    assert len(artifacts_of(own_home)) == 2
    assert left_of(own_home) == []


_ASK = """
import pickle, sys
if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    with open(sys.argv[1], "rb") as file:
        model = pickle.load(file)
    llm = LLM(model=model, enforce_eager=True, **model.engine_args)
    config = llm.llm_engine.vllm_config.model_config
    answer = llm.generate(["Hello"], SamplingParams(max_tokens=8, temperature=0), use_tqdm=False)
    tokens = len(answer[0].outputs[0].token_ids)
    print("told:", config.quantization, config.max_model_len, tokens)
"""


def test_vllm_takes_what_a_call_gave(demo: Path, engine: Engine, tmp_path: Path) -> None:
    model = quantui.prepare_model_for_vllm(
        demo / "base", engine_python=engine.python, max_model_len=512
    )
    assert not model.adapter_merged
    assert Path(model) == demo / "base"
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    (tmp_path / "ask.py").write_text(_ASK)
    done = subprocess.run(
        [engine.python, tmp_path / "ask.py", tmp_path / "model.pickle"],
        # All of vLLM in one process: it starts in a third of the time, and leaves no sockets behind.
        env={
            **os.environ,
            "PYTHONPATH": str(Path(quantui.__file__).parents[1]),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert "told: bitsandbytes 512 8" in done.stdout, done.stderr[-3000:]


_FROM_THE_HUB = """
import sys, quantui
model = quantui.prepare_model_for_vllm("me/lora", engine_python=sys.argv[1])
print("told:", model.source, "|", model)
"""


def test_an_adapter_on_the_hub_brings_its_base_in_16_bit(
    demo: Path, adapter: Path, engine: Engine, tmp_path: Path
) -> None:
    hub, stop = hub_server.start()
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "me/base-bnb-4bit"
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        for name, folder in (("me/lora", adapter), ("me/base", demo / "base")):
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            hub.repositories[name] = hub_server.Repository(files)
        told = []
        for offline in ("0", "1"):
            done = subprocess.run(
                [sys.executable, "-c", _FROM_THE_HUB, engine.python],
                env=hub_server.environment(hub, tmp_path, HF_HUB_OFFLINE=offline),
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.stdout.startswith("told: me/base@"), done.stderr[-3000:]
            told.append(done.stdout)
    finally:
        stop()
    assert told[0] == told[1]
    assert f" + me/lora@{hub.repositories['me/lora'].commit} | " in told[0]
    assert (Path(told[0].partition(" | ")[2].strip()) / "model.safetensors").exists()


def test_what_cannot_be_served_here_is_refused_before_any_work(
    demo: Path, adapter: Path, engine: Engine, own_home: Path
) -> None:
    with pytest.raises(QuantuiError) as caught:
        quantui.prepare_model_for_vllm(adapter, engine_python=engine.python, max_model_len=100_000)
    assert caught.value.code == "memory.context-too-long"
    assert not (own_home / "runs").exists()


_MERGE = """
import signal, sys, quantui
def tell(event):
    print(event.type, getattr(event, "phase", ""), flush=True)
# As in a terminal, also where the tests run in the background of a shell that has interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
base, adapter, python = sys.argv[1:]
quantui.get_or_create_merged_model(base, adapter, engine_python=python, on_event=tell)
"""


@pytest.mark.parametrize("moment", ["step.started", "step.phase plan"])
def test_a_keyboard_interrupt_leaves_no_process_and_no_artifact(
    demo: Path, adapter: Path, engine: Engine, own_home: Path, moment: str
) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", _MERGE, demo / "base", adapter, engine.python],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    assert any(line.strip().startswith(moment) for line in script.stdout)
    asked = time.monotonic()
    script.send_signal(signal.SIGINT)
    _, err = script.communicate(timeout=30)
    assert time.monotonic() - asked < 15
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert script.returncode == -signal.SIGINT
    assert left_of(own_home) == []
    assert artifacts_of(own_home) == []


def test_what_a_listener_raises_stops_the_run_and_is_raised(
    demo: Path, adapter: Path, engine: Engine, own_home: Path
) -> None:
    class EnoughError(Exception):
        pass

    def stop(event: RunEvent) -> None:
        if isinstance(event, StepStarted):
            raise EnoughError

    with pytest.raises(EnoughError):
        quantui.get_or_create_merged_model(
            demo / "base", adapter, engine_python=engine.python, on_event=stop
        )
    assert left_of(own_home) == []
    assert artifacts_of(own_home) == []


def test_a_home_that_cannot_be_written_is_one_clear_error(
    demo: Path, adapter: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUANTUI_HOME", str(tmp_path / "file"))
    with pytest.raises(QuantuiError) as caught:
        quantui.get_or_create_merged_model(demo / "base", adapter, engine_python=engine.python)
    assert str(tmp_path / "file") in caught.value.what
    assert caught.value.fix
