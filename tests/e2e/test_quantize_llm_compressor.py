"""llm-compressor's worker: what it makes of tiny models says what they say, or it makes nothing.

All cases run once, in the ``made`` fixture; the tests read what came of them. The reference is the 16-bit
model in transformers, which reads what was written.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker_runs import WORKERS, Worker, WorkerRun

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

PROGRAM = Path(__file__).parents[1] / "fixtures/quantizable.py"


class Made:
    """Every case: its events, its folder, and how it compares with its model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.compared: dict[str, dict[str, Any]] = json.loads((root / "compared.json").read_text())

    def run(self, case: str) -> WorkerRun:
        lines = (self.root / "events" / case).read_text().splitlines()
        return WorkerRun(0, [json.loads(line) for line in lines], "")

    def job(self, case: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "jobs" / f"{case}.json").read_text())
        return found

    def config(self, case: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "out" / case / "config.json").read_text())
        return found


@pytest.fixture(scope="module")
def compressor(compressor_engine: Engine) -> Worker:
    return Worker(str(compressor_engine.python))


@pytest.fixture(scope="module")
def made(compressor: Worker, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("quantizable")
    compressor.program(PROGRAM, WORKERS / "quantize_llm_compressor.py", root)
    return Made(root)


# What is made ----------------------------------------------------------------------------------------

LARGEST_ERROR = {
    "awq": 0.45, "awq-asymmetric": 0.45, "gptq": 0.5, "gptq-8": 0.03, "gptq-rows": 0.6, "w4a16": 0.5,
    "w4a16-asymmetric": 0.45, "w8a16": 0.03, "fp8_dynamic": 0.18, "fp8_block": 0.18, "fp8_static": 0.18,
    "int8_w8a8": 0.07, "int8_w8a8-rtn": 0.07, "w4a8": 0.6, "nvfp4": 0.7, "mxfp4": 0.9, "mxfp8": 0.2,
    "rotations_w4a16": 0.5, "rotations_w8a8": 0.07,
}  # fmt: skip
"""Of random weights, which round worse than trained ones; a layer that is read wrongly gives more than 1."""


@pytest.mark.parametrize("method", LARGEST_ERROR)
def test_every_method_says_nearly_what_the_model_says(made: Made, method: str) -> None:
    case = f"llama-{method}"
    assert made.run(case).result["path"] == str(made.root / "out" / case)
    assert 0 < made.compared[case]["error"] < LARGEST_ERROR[method]


@pytest.mark.parametrize("method", LARGEST_ERROR)
def test_every_linear_layer_but_the_head_is_quantized(made: Made, method: str) -> None:
    tensors = made.run(f"llama-{method}").result["tensors"]
    assert tensors["quantized"] == 14
    assert tensors["left_modules"] == ["lm_head", "model.embed_tokens"]


@pytest.mark.parametrize("method", LARGEST_ERROR)
def test_what_stays_is_of_the_models_own_dtype(made: Made, method: str) -> None:
    kept = made.compared[f"llama-{method}"]["tensors"]
    assert {kind for name, kind in kept.items() if name.endswith("norm.weight")} == {"BF16"}
    assert made.config(f"llama-{method}")["dtype"] == "bfloat16"
    wide = [name for name, kind in kept.items() if kind == "F32"]
    assert all("global_scale" in name for name in wide)


@pytest.mark.parametrize(
    ("method", "bits", "symmetric", "group"),
    [
        ("awq", 4, True, 32),
        ("awq-asymmetric", 4, False, 32),
        ("gptq-8", 8, True, 32),
        ("gptq-rows", 4, True, None),
    ],
)
def test_the_config_has_the_recipes_width_symmetry_and_groups(
    made: Made, method: str, bits: int, symmetric: bool, group: int | None
) -> None:
    (scheme,) = made.config(f"llama-{method}")["quantization_config"]["config_groups"].values()
    weights = scheme["weights"]
    found = weights["num_bits"], weights["symmetric"], weights["group_size"]
    assert found == (bits, symmetric, group)
    assert weights["scale_dtype"] is None


def test_tokenizer_and_other_files_of_the_model_lie_beside_the_weights(made: Made) -> None:
    for case in ("llama-gptq", "llama-fp8_dynamic"):
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "notes.md",
            "generation_config.json",
        ):
            source = made.root / "models/llama" / name
            assert (made.root / "out" / case / name).read_bytes() == source.read_bytes()
        assert not (made.root / "out" / case / "recipe.yaml").exists()


def test_the_result_says_how_it_was_made(made: Made) -> None:
    result = made.run("llama-int8_w8a8").result
    assert result["recipe"]["call"] == (
        "oneshot([SmoothQuantModifier(0.8)]); oneshot([GPTQModifier(W8A8, ignore=1 layers)])"
    )
    assert result["versions"]["llmcompressor"]
    assert result["calibration"]["used"] == 4
    assert set(result["phases"]) == {"load", "compare", "calibrate", "save"}


def test_four_bit_values_lie_two_in_a_byte(made: Made) -> None:
    for method in ("awq", "gptq", "w4a16", "w4a8"):
        values = made.compared[f"llama-{method}"]["tensors"]
        assert values["model.layers.0.mlp.up_proj.weight_packed"] == "I32"


def test_fp8_of_dynamic_activations_is_made_without_loading_the_model(made: Made) -> None:
    assert made.run("llama-fp8_dynamic").result["recipe"]["call"].startswith("model_free_ptq(")
    assert "compare" not in made.run("llama-fp8_dynamic").phases()


def test_progress_is_in_layers_and_never_goes_back(made: Made) -> None:
    events = made.run("llama-awq").events
    told = [event for event in events if event.get("unit") == "layers"]
    done = [event["done"] for event in told]
    assert done == sorted(done)
    assert done[-1] == told[-1]["total"] == 3, "two layers and the head"


# Wiring ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    (
        "llama-awq",
        "llama-int8_w8a8",
        "llama-rotations_w4a16",
        "gemma-awq",
        "gemma-int8_w8a8",
        "mixtral-awq",
        "tied-rotations",
        "rotated-by-another-matrix",
    ),
)
def test_scaling_and_rotating_change_nothing_before_the_rounding(made: Made, case: str) -> None:
    assert made.run(case).result["recipe"]["changed_before_rounding"] < 1e-4


@pytest.mark.parametrize(
    ("case", "largest"),
    [
        ("tied-gptq", 0.5),
        ("tied-fp8_dynamic", 0.18),
        ("tied-rotations", 0.07),
        ("gemma-int8_w8a8", 0.07),
        ("gemma-awq", 0.45),
        ("mixtral-awq", 0.6),
        ("mixtral-gptq", 0.6),
        ("mixtral-fp8_dynamic", 0.25),
        ("rotated-by-another-matrix", 0.07),
    ],
)
def test_other_architectures_say_nearly_what_they_said(
    made: Made, case: str, largest: float
) -> None:
    assert made.run(case).result
    assert 0 < made.compared[case]["error"] < largest


def test_experts_are_written_one_by_one_by_their_makers_names(made: Made) -> None:
    names = made.compared["mixtral-gptq"]["tensors"]
    experts = {name.rsplit(".", 1)[0] for name in names if ".experts." in name}
    place = "model.layers.{}.block_sparse_moe.experts.{}.w{}"
    assert experts == {
        place.format(layer, expert, matrix)
        for layer in range(2)
        for expert in range(4)
        for matrix in (1, 2, 3)
    }


@pytest.mark.parametrize("case", ["mixtral-gptq", "mixtral-fp8_dynamic"])
def test_routers_stay_and_the_config_says_so(made: Made, case: str) -> None:
    router = "model.layers.0.block_sparse_moe.gate"
    assert made.compared[case]["tensors"][f"{router}.weight"] == "BF16"
    assert router in made.config(case)["quantization_config"]["ignore"]


def test_a_tied_head_that_is_not_stored_is_named_as_left(made: Made) -> None:
    assert "lm_head" in made.config("tied-fp8_dynamic")["quantization_config"]["ignore"]


def test_sizes_that_are_no_powers_of_two_take_another_matrix(made: Made) -> None:
    assert made.run("llama-rotations_w8a8").result["recipe"]["rotation"] == "hadamard"
    found = made.run("rotated-by-another-matrix").result["recipe"]["rotation"]
    assert found == "random-hadamard"


# What stays ------------------------------------------------------------------------------------------


def test_modules_are_left_by_their_last_part_and_by_pattern(made: Made) -> None:
    left = made.run("ignoring").result["tensors"]["left_modules"]
    assert left == [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.mlp.down_proj",
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]


def test_a_module_is_left_with_all_below_it_and_a_name_of_nothing_is_told(made: Made) -> None:
    run = made.run("ignoring-in-shards")
    assert run.result["tensors"]["quantized"] == 7
    (notice,) = (event["text"] for event in run.events if event["type"] == "notice")
    assert "no_such" in notice


# What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "code", "exit_code", "names"),
    [
        ("gpt2-gptq", "quantize.unsupported-architecture", 3, "GPT2LMHeadModel"),
        ("gpt2-fp8", "quantize.unsupported-architecture", 3, "GPT2LMHeadModel"),
        ("gemma-rotations", "quantize.unsupported-architecture", 3, "pre_feedforward_layernorm"),
        ("mixtral-rotations", "quantize.unsupported-architecture", 3, "expert"),
        ("odd-rotations", "quantize.unsupported-architecture", 3, "136"),
        ("odd-gptq", "quantize.group-size", 2, "down_proj"),
        ("odd-fp8_block", "quantize.group-size", 2, "down_proj"),
        ("all-ignored", "quantize.nothing-left", 2, "ignore"),
        ("without-data", "quantize.needs-data", 2, "gptq"),
        ("bad-pattern", "quantize.bad-pattern", 2, "re:("),
        ("no-memory", "quantize.not-enough-memory", 3, "RAM"),
        ("no-memory-in-shards", "quantize.not-enough-memory", 3, "RAM"),
    ],
)
def test_what_cannot_be_made_is_one_error_before_the_work(
    made: Made, case: str, code: str, exit_code: int, names: str
) -> None:
    run = made.run(case)
    assert (run.error["code"], run.error["exit_code"]) == (code, exit_code)
    assert names in run.error["what"] + run.error["why"]
    assert run.error["fix"]
    assert "calibrate" not in run.phases()
    assert not list((made.root / "out").glob(f"{case}*"))


def test_a_cancelled_calibration_leaves_nothing(
    made: Made, compressor: Worker, tmp_path: Path
) -> None:
    job = made.job("llama-awq") | {"out": str(tmp_path / "out")}
    job["calibration"] |= {"samples": 4096}
    process = compressor.start("quantize_llm_compressor", job, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line) if line.startswith(b"{") else {}
        if event.get("type") == "phase" and event["name"] == "calibrate":
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []
