"""ONNX models of 4 and 8 bit: what is made runs in ONNX Runtime and loses little, or nothing is made."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from fixtures.produced import Producing, producing
from fixtures.quantized_rows import EIGHT_BITS, FOUR_BITS
from fixtures.worker_runs import Worker, WorkerRun

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]

RECIPE = {"method": "onnx", "producer": "onnxruntime", "writes": "onnx", "bits": 4}


@pytest.fixture(scope="module")
def onnx(onnx_engine: Engine, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Producing:
    worker = Worker(str(onnx_engine.python))
    return producing(worker, "quantize_onnx", RECIPE, demo, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def four(onnx: Producing) -> WorkerRun:
    return onnx.make("four", reference=str(onnx.reference))


@pytest.fixture(scope="module")
def eight(onnx: Producing) -> WorkerRun:
    return onnx.make("eight", bits=8, reference=str(onnx.reference))


@pytest.mark.parametrize(("name", "may_lose"), [("four", FOUR_BITS), ("eight", EIGHT_BITS)])
def test_it_predicts_text_nearly_as_the_16_bit_model_does(
    onnx: Producing, name: str, may_lose: float, request: pytest.FixtureRequest
) -> None:
    assert request.getfixturevalue(name).result
    proof = onnx.prove(name, "prove_in_onnxruntime").result
    assert proof["runtime"].startswith("ONNX Runtime")
    assert proof["perplexity"] < (1 + may_lose) * onnx.perplexity
    assert proof["agreement"] > 0.7


@pytest.mark.parametrize("name", ["four", "eight"])
def test_the_folder_holds_what_its_runtime_needs_and_no_scratch(
    onnx: Producing, name: str, request: pytest.FixtureRequest
) -> None:
    assert request.getfixturevalue(name).result
    assert {file.name for file in (onnx.folder / name).iterdir()} == {
        "model.onnx", "model.onnx.data", "genai_config.json", "config.json", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["four", "eight"])
def test_head_and_embedding_are_quantized_too(name: str, request: pytest.FixtureRequest) -> None:
    result = request.getfixturevalue(name).result
    assert result["tensors"]["left"] == 0
    assert result["tensors"]["quantized"] >= 21
    assert result["recipe"]["ignore"] == []


def test_what_was_carried_out_is_told(four: WorkerRun, eight: WorkerRun) -> None:
    recipe = four.result["recipe"]
    assert (recipe["group_size"], recipe["symmetric"]) == (32, True)
    assert "quantize_dynamic" in eight.result["recipe"]["call"]
    assert eight.result["bytes"] > four.result["bytes"]


def test_the_builder_reads_the_model_as_it_was_measured(four: WorkerRun) -> None:
    assert four.phases()[:2] == ["load", "compare"]
    assert four.result["reference"]["relative_error"] < 1e-3


def test_layers_are_told_of_as_they_are_read(four: WorkerRun) -> None:
    told = [event["done"] for event in four.events if event.get("unit") == "layers"]
    assert told == [1, 2, 3, 4]


def test_zero_points_are_made_where_they_are_asked_for(onnx: Producing) -> None:
    made = onnx.make("asymmetric", symmetric=False, group_size=64).result
    assert made["recipe"]["symmetric"] is False
    proof = onnx.prove("asymmetric", "prove_in_onnxruntime").result
    assert proof["perplexity"] < (1 + FOUR_BITS) * onnx.perplexity


def test_a_model_that_is_read_wrongly_is_not_exported(onnx: Producing) -> None:
    changed = str(onnx.read_otherwise("turned"))
    ended = onnx.make("wrong", model=changed, reference=str(onnx.reference))
    assert ended.error["code"] == "quantize.reads-model-wrongly"
    assert "export" not in ended.phases()
    assert not (onnx.folder / "wrong").exists()


@pytest.mark.parametrize("name", ["mixtral", "gpt2"])
def test_an_architecture_without_a_graph_is_refused_before_the_work(
    onnx: Producing, name: str
) -> None:
    onnx.tiny(name)
    model = str(onnx.folder / "tiny" / name)
    onnx.refused("quantize.unsupported-architecture", 3, model=model)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bits": 3}, "quantize.bad-recipe"),
        ({"group_size": 48}, "quantize.group-size"),
        ({"ignore": ["lm_head", "down_proj"]}, "quantize.bad-recipe"),
        ({"device": "cuda:0"}, "quantize.bad-recipe"),
    ],
)
def test_what_the_libraries_cannot_do_is_refused(
    onnx: Producing, changes: dict[str, object], code: str
) -> None:
    onnx.refused(code, 2, **changes)


def test_too_little_memory_is_told_before_anything_is_loaded(onnx: Producing) -> None:
    onnx.refused("quantize.not-enough-memory", 3, memory_limit_bytes=50_000_000)


def test_a_graph_without_its_data_is_no_proof(onnx: Producing, eight: WorkerRun) -> None:
    assert eight.result
    shutil.copytree(onnx.folder / "eight", onnx.folder / "cut")
    (onnx.folder / "cut/model.onnx.data").unlink()
    error = onnx.prove("cut", "prove_in_onnxruntime").error
    assert (error["code"], error["exit_code"]) == ("prove.does-not-load", 6)
