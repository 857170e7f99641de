"""AutoRound's worker: what it makes of tiny models says nearly what they say, or it makes nothing.

All cases run once, in the ``made`` fixture, with few iterations; the tests read what came of them.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.rounded import Rounded, recipe, round_all
from fixtures.takes_minutes import TAKES_MINUTES
from fixtures.worker_runs import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1800),
    TAKES_MINUTES,
]

DATA = {"source": "builtin", "samples": 4, "length": 64, "seed": 0}


def asked(model: str, bits: int = 4, **settings: Any) -> dict[str, Any]:
    given = {"group_size": 32, "symmetric": True, "format": "auto_round", "iterations": 2}
    made = recipe("autoround", "auto-round", bits, **given | settings)
    return {"model": model, "recipe": made, "calibration": DATA}


CASES = {
    "auto_round": asked("llama"),
    "auto_gptq": asked("llama", format="auto_gptq"),
    "auto_awq": asked("llama", format="auto_awq", symmetric=False),
    "llm_compressor": asked("llama", format="llm_compressor"),
    "eight-bits": asked("llama", 8),
    "mixed-8": asked("llama", mixed_bits=8),
    "mixed-6": asked("llama", mixed_bits=6),
    "tied": asked("qwen2-tied", ignore=["lm_head", "down_proj"]),
    "gemma": asked("gemma"),
    "experts": asked("mixtral"),
    # Refused.
    "odd-groups": asked("odd"),
    "odd-sizes": asked("odd", group_size=8),
    "awq-8": asked("llama", 8, format="auto_awq"),
    "gptq-6": asked("llama", format="auto_gptq", mixed_bits=6),
    "mixed-asymmetric": asked("llama", mixed_bits=8, symmetric=False),
    "all-ignored": asked("llama", ignore=["model"]),
    "no-memory": asked("llama") | {"memory_limit_bytes": 1_000_000},
}


@pytest.fixture(scope="module")
def made(compressor_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Rounded:
    root = tmp_path_factory.mktemp("auto_round")
    return round_all(compressor_engine.python, "quantize_auto_round", CASES, root)


# What is made ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "largest"),
    [
        ("auto_round", 0.6),
        ("llm_compressor", 0.6),
        ("eight-bits", 0.04),
        ("mixed-8", 0.6),
        ("mixed-6", 0.6),
        ("tied", 0.6),
        ("gemma", 0.5),
    ],
)
def test_what_is_made_says_nearly_what_the_model_says(
    made: Rounded, case: str, largest: float
) -> None:
    assert 0 < made.compared[case]["error"] < largest


@pytest.mark.parametrize(
    ("case", "method"),
    [
        ("auto_round", "auto-round"),
        ("auto_gptq", "gptq"),
        ("auto_awq", "awq"),
        ("llm_compressor", "compressed-tensors"),
    ],
)
def test_each_format_is_in_the_folder_itself_and_named_in_the_config(
    made: Rounded, case: str, method: str
) -> None:
    assert made.config(case)["quantization_config"]["quant_method"] == method
    assert not [path for path in made.out(case).iterdir() if path.is_dir()]
    assert made.run(case).result["tensors"]["quantized"] == 14


def test_what_stays_is_of_the_models_own_dtype(made: Rounded) -> None:
    for case in ("auto_round", "auto_gptq", "auto_awq", "llm_compressor"):
        tensors = made.compared[case]["tensors"]
        assert tensors["model.embed_tokens.weight"] == "BF16"
        assert tensors["model.norm.weight"] == "BF16"
        assert "F32" not in tensors.values()


def test_a_tied_head_is_stored_once(made: Rounded) -> None:
    assert "lm_head.weight" not in made.compared["tied"]["tensors"]


def test_ignored_layers_stay_in_16_bit(made: Rounded) -> None:
    tensors = made.run("tied").result["tensors"]
    assert tensors["quantized"] == 12
    assert "model.layers.1.mlp.down_proj" in tensors["left_modules"]


def test_experts_are_quantized_and_their_router_is_not(made: Rounded) -> None:
    tensors = made.run("experts").result["tensors"]
    assert tensors["quantized"] == 2 * (4 + 4 * 3)
    assert [name for name in tensors["left_modules"] if name.endswith("gate")]


def test_files_of_the_model_lie_beside_the_weights(made: Rounded) -> None:
    assert made.same_beside_the_weights("auto_round", "llama")


def test_the_result_says_how_it_was_made(made: Rounded) -> None:
    result = made.run("auto_round").result
    assert "iters=2" in result["recipe"]["call"]
    assert result["recipe"]["iterations"] == 2
    assert result["calibration"]["used"] == 4
    assert result["versions"]["auto-round"]
    assert set(result["phases"]) == {"load", "compare", "calibrate", "save"}


def test_progress_is_in_blocks(made: Rounded) -> None:
    told = [event for event in made.run("auto_round").events if event.get("unit") == "blocks"]
    done = [event["done"] for event in told if event["total"] == 2]
    assert done == sorted(done)
    assert done[-1] == 2


# Mixed widths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [6, 8])
def test_the_layers_that_suffer_most_are_wider_and_the_recipe_names_them(
    made: Rounded, bits: int
) -> None:
    found = made.run(f"mixed-{bits}").result["recipe"]
    assert 0 < found["wider_share"] <= 0.25
    wider = set(found["wider_layers"])
    sizes = {"q_proj": 2**15, "o_proj": 2**14, "gate_proj": 2**16, "down_proj": 2**15}
    units = {
        name: (kl / sizes[name.rpartition(".")[2]], sizes[name.rpartition(".")[2]])
        for name, kl in found["sensitivity"].items()
    }
    assert len(units) == 8
    for name, (gain, size) in units.items():
        passed_over = [
            one for one, (more, as_large) in units.items()
            if one not in wider and more > gain and as_large <= size
        ]  # fmt: skip
        assert name not in wider or not passed_over


def test_what_a_server_joins_has_one_width(made: Rounded) -> None:
    wider = set(made.run("mixed-8").result["recipe"]["wider_layers"])
    for layer in (0, 1):
        of_attention = {f"model.layers.{layer}.self_attn.{part}_proj" for part in "qkv"}
        assert len(of_attention & wider) in (0, 3)


def test_eight_bits_among_four_are_in_the_config_by_name(made: Rounded) -> None:
    extra = made.config("mixed-8")["quantization_config"]["extra_config"]
    wider = {name for name, one in extra.items() if one.get("bits") == 8}
    assert wider == set(made.run("mixed-8").result["recipe"]["wider_layers"])


def test_six_bits_are_written_as_compressed_tensors(made: Rounded) -> None:
    groups = made.config("mixed-6")["quantization_config"]["config_groups"].values()
    assert {group["weights"]["num_bits"] for group in groups} == {4, 6}
    assert made.run("mixed-6").result["recipe"]["format"] == "llm_compressor"
    assert any("6-bit" in text for text in made.notices("mixed-6"))


# What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "code", "exit_code", "names"),
    [
        ("odd-groups", "quantize.group-size", 2, "down_proj"),
        ("odd-sizes", "quantize.unsupported-architecture", 3, "32"),
        ("awq-8", "quantize.option", 2, "auto_awq"),
        ("gptq-6", "quantize.option", 2, "auto_gptq"),
        ("mixed-asymmetric", "quantize.option", 2, "symmetric"),
        ("all-ignored", "quantize.nothing-left", 2, "ignore"),
        ("no-memory", "quantize.not-enough-memory", 3, "RAM"),
    ],
)
def test_what_cannot_be_made_is_one_error_before_the_work(
    made: Rounded, case: str, code: str, exit_code: int, names: str
) -> None:
    run = made.run(case)
    assert (run.error["code"], run.error["exit_code"]) == (code, exit_code)
    assert names in run.error["what"] + run.error["why"]
    assert run.error["fix"]
    assert "calibrate" not in run.phases()
    assert not list((made.root / "out").glob(f"{case}*"))


def test_a_cancelled_calibration_leaves_nothing(
    made: Rounded, compressor_engine: Engine, tmp_path: Path
) -> None:
    job = made.job("auto_round") | {"out": str(tmp_path / "out")}
    job["recipe"]["iterations"] = 100_000
    worker = Worker(str(compressor_engine.python))
    process = worker.start("quantize_auto_round", job, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line) if line.startswith(b"{") else {}
        if event.get("type") == "phase" and event["name"] == "calibrate":
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not list(tmp_path.glob("out*"))
