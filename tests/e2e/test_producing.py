"""The frame of every producer, by one that changes nothing: what it checks, tells, refuses and leaves behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker_runs import WorkerRun

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

PRODUCER = Path(__file__).parents[1] / "fixtures/plain_producer.py"
RECIPE = {"method": "gptq", "producer": "plain", "writes": "w4a16", "bits": 4}

MISREADINGS = {
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}},
    "scaling": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}},
    "norm": {"rms_norm_eps": 1e-3},
    "activation": {"hidden_act": "gelu_pytorch_tanh"},
}
"""What a library could take from the config of the demo's base in place of what is there."""

FAILURES: dict[str, tuple[dict[str, Any], str, int]] = {
    "no-memory": ({"act": "no-memory"}, "quantize.not-enough-memory", 3),
    "full-disk": ({"act": "full-disk"}, "disk.full", 3),
    "full-disk-in-rust": ({"act": "full-disk-in-rust"}, "disk.full", 3),
    "nothing-written": ({"act": "nothing"}, "quantize.wrote-nothing", 4),
    "memory-limit": ({"memory_limit_bytes": 1_000_000}, "quantize.not-enough-memory", 3),
    "lacking": ({"needs": ["torch", "no_such_package"]}, "engine.lacks-packages", 4),
    "bad-job": ({"recipe": {"method": "awq"}}, "quantize.bad-job", 2),
    "bad-reference": ({"reference": str(PRODUCER)}, "quantize.bad-reference", 4),
    "group-size": ({"recipe": {**RECIPE, "group_size": 96}}, "quantize.group-size", 2),
    "no-model": ({"model": "/nowhere"}, "model.bad-config", 2),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("producing")


@pytest.fixture(scope="module")
def runs(demo: Path, worker: Worker, root: Path) -> dict[str, WorkerRun]:
    """Every run, by name; each has a folder of its own for what it makes."""
    reference = root / "reference"
    worker.run(
        "measure_model",
        {"model": str(demo / "base"), "out": str(reference), "tokens": 1024},
        root,
    )

    def job(name: str, **changes: Any) -> dict[str, Any]:
        (root / name).mkdir()
        return {
            "model": str(demo / "base"),
            "out": str(root / name / "made"),
            "device": "cpu",
            "recipe": RECIPE,
            **changes,
        }

    texts = {"source": "builtin", "samples": 4, "length": 64, "seed": 0}
    jobs = {
        "right": job("right", reference=str(reference), calibration=texts),
        "broken": job("broken", reference=str(reference), act="broken"),
        "exists": job("exists"),
    }
    (root / "exists/made").mkdir()
    (root / "exists/made/config.json").write_text("mine")
    for name, config in MISREADINGS.items():
        model = changed(demo, root / "models" / name, config)
        jobs[name] = job(name, model=str(model), reference=str(reference))
    for name, (changes, _, _) in FAILURES.items():
        jobs[name] = job(name, **changes)
    events = root / "events"
    events.mkdir()
    (root / "jobs.json").write_text(json.dumps(jobs))
    worker.program(PRODUCER, root / "jobs.json", events)
    return {name: told(events / name) for name in jobs}


def changed(demo: Path, model: Path, config: dict[str, Any]) -> Path:
    shutil.copytree(demo / "base", model)
    stored = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**stored, **config}))
    return model


def told(path: Path) -> WorkerRun:
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return WorkerRun(0, events, path.with_name(f"{path.name}.err").read_text())


def test_a_model_that_is_read_rightly_is_made(runs: dict[str, WorkerRun], root: Path) -> None:
    run = runs["right"]
    assert run.result["reference"]["relative_error"] < 1e-4
    assert run.result["reference"]["kl"] < 1e-6
    assert run.phases() == ["load", "compare", "calibrate", "save"]
    assert run.result["path"] == str(root / "right/made")
    assert (root / "right/made/config.json").is_file()


def test_the_result_tells_how_it_was_made(runs: dict[str, WorkerRun], root: Path) -> None:
    result = runs["right"].result
    files = [file for file in (root / "right/made").rglob("*") if file.is_file()]
    assert result["bytes"] == sum(file.stat().st_size for file in files)
    assert set(result["phases"]) == {"load", "compare", "calibrate", "save"}
    assert result["recipe"]["call"] == "save_pretrained()"
    assert result["recipe"]["group_size"] == 64, "as carried out"
    assert result["recipe"]["bits"] == 4
    assert result["calibration"]["used"] == 4
    assert result["peak_rss_bytes"] > 100e6
    assert result["peak_gpu_bytes"] is None
    assert {"python", "torch", "transformers"} <= set(result["versions"])


def test_what_is_left_in_16_bit_is_counted(runs: dict[str, WorkerRun]) -> None:
    tensors = runs["right"].result["tensors"]
    assert tensors["quantized"] == 0
    assert tensors["left"] == 29, "seven matrices in each of four layers, and the embedding"
    assert tensors["left_bytes"] == 8_388_608
    assert len(tensors["left_modules"]) == 20


def test_bars_of_a_library_are_progress_and_still_go_to_the_log(
    runs: dict[str, WorkerRun],
) -> None:
    bars = [event for event in runs["right"].events if event.get("unit") == "layers"]
    assert (bars[-1]["done"], bars[-1]["total"]) == (3, 3)
    assert {event["message"] for event in bars} == {"(1/1) Calibrating"}
    assert "Calibrating" in runs["right"].stderr


@pytest.mark.parametrize("name", [*MISREADINGS, "broken"])
def test_a_model_that_is_read_wrongly_is_not_calibrated(
    runs: dict[str, WorkerRun], root: Path, name: str
) -> None:
    run = runs[name]
    assert run.error["code"] == "quantize.reads-model-wrongly"
    assert run.error["exit_code"] == 4
    assert run.phases() == ["load", "compare"]
    assert list((root / name).iterdir()) == []


@pytest.mark.parametrize("name", FAILURES)
def test_what_goes_wrong_is_one_clear_error_and_leaves_nothing(
    runs: dict[str, WorkerRun], root: Path, name: str
) -> None:
    _, code, exit_code = FAILURES[name]
    error = runs[name].error
    assert (error["code"], error["exit_code"]) == (code, exit_code)
    assert error["what"]
    assert error["fix"]
    assert [event["type"] for event in runs[name].events].count("error") == 1
    assert list((root / name).iterdir()) == []


def test_a_group_size_that_does_not_divide_names_a_layer_and_what_would(
    runs: dict[str, WorkerRun],
) -> None:
    error = runs["group-size"].error
    assert "model.layers.0.mlp.gate_proj, which takes in 256 features" in error["what"]
    assert "16, 32, 64, 128" in error["fix"]


def test_a_finished_checkpoint_is_never_overwritten(runs: dict[str, WorkerRun], root: Path) -> None:
    assert runs["exists"].error["code"] == "quantize.exists"
    assert (root / "exists/made/config.json").read_text() == "mine"


def test_a_stopped_producer_leaves_nothing(demo: Path, worker: Worker, tmp_path: Path) -> None:
    job = {
        "model": str(demo / "base"),
        "out": str(tmp_path / "made"),
        "recipe": RECIPE,
        "act": "wait",
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    with subprocess.Popen(
        [worker.python, str(PRODUCER), str(tmp_path / "job.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert any(b'"waiting"' in line for line in process.stdout)
        assert (tmp_path / "made.partial/half").exists()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
