"""GPTQModel's worker: what it writes is the ``gptq`` format and loses little, or it writes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fixtures.produced import Producing, producing
from fixtures.quantized_rows import EIGHT_BITS, FOUR_BITS
from fixtures.worker_runs import Worker, WorkerRun

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]

RECIPE = {
    "method": "gptq",
    "producer": "gptqmodel",
    "writes": "gptq",
    "bits": 4,
    "group_size": 128,
    "symmetric": True,
}


@pytest.fixture(scope="module")
def gptq(
    gptqmodel_engine: Engine, demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Producing:
    worker = Worker(str(gptqmodel_engine.python))
    folder = tmp_path_factory.mktemp("gptqmodel")
    return producing(worker, "quantize_gptqmodel", RECIPE, demo, folder)


@pytest.fixture(scope="module")
def four(gptq: Producing) -> WorkerRun:
    return gptq.make("four", reference=str(gptq.reference))


@pytest.fixture(scope="module")
def eight(gptq: Producing) -> WorkerRun:
    return gptq.make("eight", bits=8)


@pytest.mark.parametrize(("name", "may_lose"), [("four", FOUR_BITS), ("eight", EIGHT_BITS)])
def test_it_predicts_text_nearly_as_the_16_bit_model_does(
    gptq: Producing, name: str, may_lose: float, request: pytest.FixtureRequest
) -> None:
    assert request.getfixturevalue(name).result
    proof = gptq.prove(name, "prove_in_transformers").result
    assert proof["perplexity"] < (1 + may_lose) * gptq.perplexity


def test_the_config_is_the_models_own_with_how_it_is_packed(
    gptq: Producing, four: WorkerRun
) -> None:
    assert four.result
    config = json.loads((gptq.folder / "four/config.json").read_text())
    packed = config.pop("quantization_config")
    assert config == json.loads((gptq.model / "config.json").read_text())
    found = {
        name: packed[name] for name in ("quant_method", "bits", "group_size", "sym", "desc_act")
    }
    assert found == {
        "quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False,
    }  # fmt: skip


def test_every_linear_layer_but_the_head_is_quantized(four: WorkerRun) -> None:
    tensors = four.result["tensors"]
    assert tensors["quantized"] == 28
    assert tensors["left_modules"] == ["model.embed_tokens"]


def test_tokenizer_and_generation_config_are_the_models_own_files(
    gptq: Producing, four: WorkerRun
) -> None:
    assert four.result
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (gptq.folder / "four" / name).read_bytes() == (gptq.model / name).read_bytes()


def test_blocks_are_told_of_one_by_one(four: WorkerRun) -> None:
    told = [event["done"] for event in four.events if event.get("unit") == "layers"]
    assert told == [0, 1, 2, 3, 4]


def test_gptqmodel_reads_the_model_as_it_was_measured(four: WorkerRun) -> None:
    assert four.phases() == ["load", "compare", "calibrate", "save"]
    assert four.result["reference"]["relative_error"] < 1e-3


def test_modules_that_are_to_stay_are_left_in_16_bit(gptq: Producing) -> None:
    made = gptq.make("leaving", ignore=["lm_head", "down_proj"]).result
    assert made["tensors"]["quantized"] == 24
    assert "model.layers.3.mlp.down_proj" in made["tensors"]["left_modules"]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "mixtral", "gpt2"])
def test_other_architectures_are_quantized(gptq: Producing, name: str) -> None:
    gptq.tiny(name)
    model = str(gptq.folder / "tiny" / name)
    made = gptq.make(f"tiny-{name}", model=model, group_size=64).result
    assert made["tensors"]["quantized"] >= 8


def test_a_model_that_is_read_wrongly_is_not_calibrated(gptq: Producing) -> None:
    changed = str(gptq.read_otherwise("turned"))
    ended = gptq.make("wrong", model=changed, reference=str(gptq.reference))
    assert ended.error["code"] == "quantize.reads-model-wrongly"
    assert "calibrate" not in ended.phases()
    assert not (gptq.folder / "wrong").exists()


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"bits": 5}, "quantize.bad-recipe"), ({"group_size": 96}, "quantize.group-size")],
)
def test_what_the_format_has_not_is_refused(
    gptq: Producing, changes: dict[str, object], code: str
) -> None:
    gptq.refused(code, 2, **changes)


def test_too_little_memory_is_told_before_anything_is_loaded(gptq: Producing) -> None:
    ended = gptq.make("small", memory_limit_bytes=50_000_000)
    assert (ended.error["code"], ended.error["exit_code"]) == ("quantize.not-enough-memory", 3)
    assert not (gptq.folder / "small").exists()
