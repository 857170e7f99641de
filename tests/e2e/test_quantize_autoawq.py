"""AutoAWQ's worker: what it writes is the ``awq`` format and loses little, or it writes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fixtures.produced import Producing, producing
from fixtures.quantized_rows import FOUR_BITS
from fixtures.worker_runs import Worker, WorkerRun

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]

RECIPE = {
    "method": "awq",
    "producer": "autoawq",
    "writes": "awq",
    "bits": 4,
    "group_size": 128,
    "symmetric": False,
}


@pytest.fixture(scope="module")
def awq(autoawq_engine: Engine, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Producing:
    worker = Worker(str(autoawq_engine.python))
    folder = tmp_path_factory.mktemp("autoawq")
    return producing(worker, "quantize_autoawq", RECIPE, demo, folder)


@pytest.fixture(scope="module")
def four(awq: Producing) -> WorkerRun:
    return awq.make("four", reference=str(awq.reference))


def test_it_predicts_text_nearly_as_the_16_bit_model_does(awq: Producing, four: WorkerRun) -> None:
    assert four.result
    proof = awq.prove("four", "prove_in_transformers").result
    assert proof["perplexity"] < (1 + FOUR_BITS) * awq.perplexity


def test_the_config_is_the_models_own_with_how_it_is_packed(
    awq: Producing, four: WorkerRun
) -> None:
    assert four.result
    config = json.loads((awq.folder / "four/config.json").read_text())
    packed = config.pop("quantization_config")
    assert config == json.loads((awq.model / "config.json").read_text())
    assert packed == {
        "quant_method": "awq", "zero_point": True, "group_size": 128, "bits": 4, "version": "gemm",
        "modules_to_not_convert": None,
    }  # fmt: skip


def test_every_linear_layer_but_the_head_is_quantized(four: WorkerRun) -> None:
    tensors = four.result["tensors"]
    assert tensors["quantized"] == 28
    assert tensors["left_modules"] == ["model.embed_tokens"]
    # bfloat16, whatever was computed in.
    assert tensors["left_bytes"] == 4096 * 256 * 2


def test_tokenizer_and_generation_config_are_the_models_own_files(
    awq: Producing, four: WorkerRun
) -> None:
    assert four.result
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (awq.folder / "four" / name).read_bytes() == (awq.model / name).read_bytes()


def test_blocks_are_told_of_one_by_one(four: WorkerRun) -> None:
    told = [event["done"] for event in four.events if event.get("unit") == "layers"]
    assert told[-1] == 4
    assert sorted(told) == told


def test_autoawq_reads_the_model_as_it_was_measured(four: WorkerRun) -> None:
    assert four.phases() == ["load", "compare", "calibrate", "save"]
    assert four.result["reference"]["relative_error"] < 1e-3


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_other_architectures_are_quantized(awq: Producing, name: str) -> None:
    awq.tiny(name)
    model = str(awq.folder / "tiny" / name)
    made = awq.make(f"tiny-{name}", model=model, group_size=64).result
    assert made["tensors"]["quantized"] == 14


def test_a_model_that_is_read_wrongly_is_not_calibrated(awq: Producing) -> None:
    changed = str(awq.read_otherwise("turned"))
    ended = awq.make("wrong", model=changed, reference=str(awq.reference))
    assert ended.error["code"] == "quantize.reads-model-wrongly"
    assert "calibrate" not in ended.phases()
    assert not (awq.folder / "wrong").exists()


@pytest.mark.parametrize("name", ["mixtral", "gemma3", "gpt2", "odd"])
def test_what_autoawq_does_not_know_is_refused_before_the_work(awq: Producing, name: str) -> None:
    awq.tiny(name)
    model = str(awq.folder / "tiny" / name)
    awq.refused("quantize.unsupported-architecture", 3, model=model, group_size=8)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bits": 8}, "quantize.bad-recipe"),
        ({"symmetric": True}, "quantize.bad-recipe"),
        ({"group_size": -1}, "quantize.bad-recipe"),
        ({"group_size": 96}, "quantize.group-size"),
        ({"ignore": ["lm_head", "down_proj"]}, "quantize.bad-recipe"),
    ],
)
def test_what_the_format_has_not_is_refused(
    awq: Producing, changes: dict[str, object], code: str
) -> None:
    awq.refused(code, 2, **changes)


def test_too_little_memory_is_told_before_anything_is_loaded(awq: Producing) -> None:
    ended = awq.make("small", memory_limit_bytes=50_000_000)
    assert (ended.error["code"], ended.error["exit_code"]) == ("quantize.not-enough-memory", 3)
    assert not (awq.folder / "small").exists()
