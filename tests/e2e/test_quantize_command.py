"""`quantui quantize`, and a profile that quantizes, with stand-ins for the workers: what is made, told and left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.quantizing_bench import QuantizingBench, make_quantizing_bench
from fixtures.quantui_command import Ended, when_a_terminal_closes, write_profile

import quantui
from quantui.runtime.artifacts import read_artifact

if TYPE_CHECKING:
    from collections.abc import Callable

AWQ = ("--method", "awq")
WAIT = 'wire.phase("busy")\ntime.sleep(600)'
MAKE = """
out = Path(job["out"]); out.mkdir()
(out / "model.safetensors").write_text("quantized")
"""


@pytest.fixture
def bench(tmp_path: Path) -> QuantizingBench:
    return make_quantizing_bench(tmp_path, stand_ins=True)


@pytest.fixture
def bench_where(tmp_path: Path) -> Callable[..., QuantizingBench]:
    return lambda **bodies: make_quantizing_bench(tmp_path, stand_ins=True, **bodies)


def rows(ended: Ended) -> dict[str, str]:
    """What was told on stdout, by label."""
    return {line[:16].strip(): line[16:] for line in ended.out.splitlines()}


def result(ended: Ended) -> dict[str, object]:
    assert ended.exit_code == 0, ended.text
    (finished,) = (event for event in ended.of("step.finished") if event["step"] == "quantize")
    return finished["result"]


# What it makes and tells -----------------------------------------------------------------------------


def test_the_result_is_an_artifact_and_is_told_with_its_proof(bench: QuantizingBench) -> None:
    ended = bench.run(*AWQ)
    assert ended.exit_code == 0, ended.text
    (artifact,) = bench.home.artifacts
    found = read_artifact(artifact)
    assert found is not None
    assert found.record["kind"] == "awq-llm-compressor-w4-g128"
    told = rows(ended)
    assert told["path"] == str(artifact)
    assert told["size"].startswith("3.0 MiB")
    assert told["method"] == (
        "awq by llm-compressor 0.14.0.1, 4 bit, groups of 128, symmetric, written as w4a16"
    )
    assert told["took"] == "12.5 s, on cpu (load 1.5 s, calibrate 11.0 s)"
    assert told["peak RAM"] == "1.00 GiB"
    assert told["perplexity"] == "20.5, the 16-bit model's 20: +2.50% (4,096 held-out tokens)"
    assert told["proven in"].startswith("vLLM 0.32.0 (CPU)")
    assert told["in 16 bit"] == "2 tensors, 1.0 MiB: lm_head; 6 quantized"
    assert told["calibrated on"] == "128 samples, 65,536 tokens of builtin, 1 empty, 2 repeated"


def test_before_it_starts_it_says_who_makes_it_why_and_what_it_takes(
    bench: QuantizingBench,
) -> None:
    text = bench.run(*AWQ).text
    assert "llm-compressor makes it" in text
    assert "Making it takes RAM" in text
    assert "128 built-in samples" in text


def test_asked_again_it_is_reused_and_says_so(bench: QuantizingBench) -> None:
    first = bench.run(*AWQ)
    ended = bench.run(*AWQ)
    assert rows(ended)["path"] == rows(first)["path"] + " (made before)"
    assert "reused from" in ended.err


@pytest.mark.parametrize(
    "other",
    [
        ["--group-size", "64"],
        ["--asymmetric"],
        ["--samples", "64"],
        ["--seed", "1"],
        ["--ignore", "lm_head", "--ignore", "re:.*down_proj"],
    ],
    ids=" ".join,
)
def test_another_recipe_is_another_artifact(bench: QuantizingBench, other: list[str]) -> None:
    bench.run(*AWQ)
    again = bench.run(*AWQ, *other, "--json")
    assert again.of("step.reused") == []
    assert len(bench.home.artifacts) == 2


def test_other_calibration_texts_are_another_artifact_though_the_path_is_the_same(
    bench: QuantizingBench,
) -> None:
    texts = bench.folder / "texts.txt"
    for content in ("one text", "another text"):
        texts.write_text(content)
        result(bench.run(*AWQ, "--calibration", texts, "--json"))
    assert len(bench.home.artifacts) == 2


def test_a_relative_path_is_found_by_the_workers_too(
    bench_where: Callable[..., QuantizingBench],
) -> None:
    body = f"assert Path(job['calibration']['source']).is_file(), job\n{MAKE}"
    check = "assert Path(job['text']).is_file(), job"
    bench = bench_where(
        produce=body, prove=check, measure=check + "\nPath(job['out']).write_text('x')"
    )
    (bench.folder / "texts.txt").write_text("a text")
    here = os.path.relpath(bench.folder / "texts.txt")
    result(bench.run(*AWQ, "--calibration", here, "--proof-text", here, "--json"))


def test_a_profile_and_the_python_call_find_the_same(
    bench: QuantizingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(bench.adapter, *AWQ)
    artifacts = bench.home.artifacts
    profile = write_profile(
        bench.folder / "prod.toml",
        {
            "model": {"id": str(bench.model)},
            "adapter": {"id": str(bench.adapter)},
            "quantization": {"method": "awq", "python": str(bench.producing.python)},
            "engine": {"name": "vllm-cpu", "python": str(bench.serving.python)},
        },
    )
    ended = bench.home.run("--profile", profile, "--prepare-only", "--json")
    assert [Path(event["artifact"]) for event in ended.of("step.reused")] == [
        path for path in artifacts if "awq" in path.name
    ]
    checked = bench.home.run("--profile", profile, "--check")
    assert "quantize to awq with llm-compressor" in checked.out
    assert checked.out.count("(made before: reused)") == 2
    monkeypatch.setenv("QUANTUI_HOME", str(bench.home.path))
    found = quantui.get_or_create_awq_model(
        bench.model,
        bench.adapter,
        engine_python=str(bench.serving.python),
        producer_python=str(bench.producing.python),
    )
    assert Path(found) in artifacts
    prepared = quantui.prepare_model_for_vllm(
        bench.model,
        adapter=bench.adapter,
        method="awq",
        engine_python=str(bench.serving.python),
        producer_python=str(bench.producing.python),
    )
    assert prepared == found
    assert "quantization" not in prepared.engine_args


def test_quantize_to_awq_makes_the_folder_that_is_named(
    bench: QuantizingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTUI_HOME", str(bench.home.path))
    out = bench.folder / "awq"
    made = quantui.quantize_to_awq(
        bench.model,
        out,
        group_size=64,
        engine_python=str(bench.serving.python),
        producer_python=str(bench.producing.python),
    )
    assert made == str(out)
    assert (out / "quantui.json").is_file()


def test_out_is_a_folder_of_the_users_whole_with_its_record(bench: QuantizingBench) -> None:
    out = bench.folder / "results" / "mine"
    out.parent.mkdir()
    ended = bench.run(*AWQ, "--out", out)
    assert rows(ended)["path"] == str(out)
    assert [path.name for path in out.parent.iterdir()] == ["mine"]
    assert json.loads((out / "quantui.json").read_text())["made"]["loss"] == pytest.approx(0.025)
    assert bench.home.artifacts == bench.home.unfinished == []


def test_json_has_every_event_and_nothing_else(bench: QuantizingBench) -> None:
    ended = bench.run(bench.adapter, *AWQ, "--json")
    kinds = [event["type"] for event in ended.events]
    assert (kinds[0], kinds[-1]) == ("run.started", "run.finished")
    assert [event["step"] for event in ended.of("step.finished")] == ["merge", "quantize"]
    measured = {event["name"]: event for event in ended.of("measured")}
    assert (measured["perplexity"]["value"], measured["perplexity"]["base"]) == (20.5, 20.0)
    assert ended.err == ""


def test_a_dry_run_says_what_it_would_do_and_does_nothing(bench: QuantizingBench) -> None:
    ended = bench.run(bench.adapter, *AWQ, "--group-size", "64", "--dry-run")
    assert ended.exit_code == 0
    assert f"quantize {bench.model} {bench.adapter} --method awq --group-size 64" in ended.out
    assert "llm-compressor makes it" in ended.err
    assert not bench.home.path.joinpath("artifacts").exists()
    assert not bench.home.path.joinpath("runs").exists()


def test_the_command_that_a_dry_run_prints_makes_the_same(bench: QuantizingBench) -> None:
    options = ["--bits", "4", "--group-size", "32", "--samples", "16", "--asymmetric"]
    made = result(bench.run(*AWQ, *options, "--json"))
    line = bench.run(*AWQ, *options, "--dry-run").out.splitlines()[-1]
    words = line.split(" quantui ", 1)[-1].removeprefix("quantui ").split()
    again = bench.home.run(*words, "--json")
    assert [event["artifact"] for event in again.of("step.reused")] == [made["path"]]


def test_the_size_of_the_merged_copy_is_told_and_deleted_when_asked(bench: QuantizingBench) -> None:
    ended = bench.run(bench.adapter, *AWQ)
    assert "The merged 16-bit model takes 5.0 MiB" in ended.text
    assert len(bench.home.artifacts) == 2
    ended = bench.run(bench.adapter, *AWQ, "--set", "cleanup.after_run=delete-merged")
    assert "Deleted the merged 16-bit model, 5.0 MiB" in ended.text
    assert len(bench.home.artifacts) == 1
    again = bench.run(bench.adapter, *AWQ)
    assert "✓ merge: 0.0 s, not needed: the quantized model was made before" in again.text


def test_what_vllm_does_not_run_here_is_proven_in_transformers_with_the_reason(
    bench: QuantizingBench,
) -> None:
    ended = bench.run("--method", "nvfp4", "--force")
    assert ended.exit_code == 0, ended.text
    assert rows(ended)["proven in"].startswith("transformers 5.17.0")
    assert "; not in vLLM: " in rows(ended)["proven in"]


# What it leaves --------------------------------------------------------------------------------------


def test_a_loss_above_the_limit_has_its_exit_code_and_the_result_is_not_used(
    bench: QuantizingBench,
) -> None:
    ended = bench.run(*AWQ, "--max-loss", "0.02")
    assert ended.exit_code == 6
    assert "+2.50%, more than the 2.00%" in ended.text
    (broken,) = bench.home.artifacts
    assert broken.name.endswith(".broken")
    assert f"kept as {broken}" in ended.text
    assert bench.run(*AWQ).exit_code == 0
    assert [path.name.endswith(".broken") for path in bench.home.artifacts] == [False]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os.kill(os.getpid(), 9)", 3),
        ("raise OSError(28, 'No space left on device')", 3),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); bytes(4 << 30)",
            3,
        ),
        ("raise ValueError('the library broke')", 4),
        ("raise wire.WorkerError('calibration.empty', 'No text.', 'Why.', 'Fix.', exit_code=2)", 2),
        ("raise wire.WorkerError('quantize.reads-model-wrongly', 'Wrong.', 'Why.', 'Fix.')", 4),
    ],
    ids=["killed", "disk full", "out of memory", "crash", "bad texts", "reads the model wrongly"],
)
def test_a_producer_that_fails_leaves_nothing_and_the_next_run_works(
    bench_where: Callable[..., QuantizingBench], body: str, code: int
) -> None:
    bench = bench_where(
        produce="half = Path(job['out'] + '.partial'); half.mkdir()\n"
        f"if not Path(job['model'], 'mended').exists(): {body}\nhalf.rmdir()\n{MAKE}"
    )
    ended = bench.run(*AWQ)
    assert ended.exit_code == code, ended.text
    assert [line[:6] for line in ended.err.splitlines()].count("error ") == 1
    assert bench.home.artifacts == bench.home.unfinished == []
    (bench.model / "mended").touch()
    assert bench.run(*AWQ).exit_code == 0


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("measure", signal.SIGINT),
        ("produce", signal.SIGINT),
        ("produce", signal.SIGTERM),
        ("produce", signal.SIGHUP),
        ("prove", signal.SIGTERM),
    ],
)
def test_stopped_it_leaves_nothing(
    bench_where: Callable[..., QuantizingBench], where: str, number: signal.Signals
) -> None:
    bodies = {where: (MAKE if where == "produce" else "") + WAIT}
    bench = bench_where(**bodies)
    with when_a_terminal_closes(signal.SIG_DFL):
        running = bench.start(*AWQ, "--json")
    running.wait_for(
        lambda event: event["type"] == "step.phase" and event["phase"].endswith("busy"), 120
    )
    ended = running.stop(number)
    assert ended.exit_code == 130
    assert bench.home.artifacts == bench.home.unfinished == []
    assert bench.home.cleared()


def test_quantui_killed_outright_leaves_no_process_and_the_next_run_works(
    bench_where: Callable[..., QuantizingBench],
) -> None:
    bench = bench_where(
        produce=f"{MAKE}\nif not Path(job['model'], 'mended').exists():\n    wire.phase('busy'); time.sleep(600)"
    )
    running = bench.start(*AWQ, "--json")
    running.wait_for(lambda event: event.get("phase") == "busy", 120)
    running.process.kill()
    assert running.end(60).exit_code == -9
    assert bench.home.cleared()
    assert bench.home.artifacts == []
    (bench.model / "mended").touch()
    assert bench.run(*AWQ).exit_code == 0
    assert bench.home.unfinished == []


def test_inspect_tells_how_a_folder_was_quantized(
    bench_where: Callable[..., QuantizingBench],
) -> None:
    body = "import shutil; shutil.copytree(job['model'], job['out'])"
    bench = bench_where(produce=body)
    out = bench.folder / "out"
    bench.run(*AWQ, "--out", out)
    told = rows(bench.home.run("inspect", out))
    assert told["perplexity"].startswith("20.5, the 16-bit model's 20: +2.50%")
    assert told["calibrated on"].startswith("128 samples")
    as_json = json.loads(bench.home.run("inspect", out, "--json").out)
    assert as_json["quantized"]["recipe"]["method"] == "awq"
