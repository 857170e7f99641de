"""bitsandbytes' worker: stored NF4 and INT8 say nearly what the model says, or nothing is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures.rounded import Rounded, recipe, round_all
from fixtures.takes_minutes import TAKES_MINUTES

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1200),
    TAKES_MINUTES,
]


def asked(model: str, bits: int = 4, **settings: Any) -> dict[str, Any]:
    method = "bitsandbytes" if bits == 4 else "bitsandbytes_8bit"
    return {"model": model, "recipe": recipe(method, "bitsandbytes", bits, **settings)}


CASES = {
    **{f"{name}-4": asked(name) for name in ("llama", "qwen2-tied", "qwen3", "gemma", "odd")},
    **{f"{name}-8": asked(name, 8) for name in ("llama", "qwen2-tied", "qwen3", "gemma")},
    "ignoring": asked("llama", ignore=["lm_head", "down_proj"]),
    "three-bits": asked("llama", 3),
    "experts": asked("mixtral"),
    "conv1d": asked("gpt2", 8),
    "all-ignored": asked("llama", ignore=["model"]),
    "no-memory": asked("llama") | {"memory_limit_bytes": 1_000_000},
}


@pytest.fixture(scope="module")
def made(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Rounded:
    root = tmp_path_factory.mktemp("bitsandbytes")
    return round_all(engine.python, "quantize_bitsandbytes", CASES, root)


@pytest.mark.parametrize("model", ["llama", "qwen2-tied", "qwen3", "gemma"])
@pytest.mark.parametrize(("bits", "largest"), [(4, 0.5), (8, 0.06)])
def test_what_is_stored_says_nearly_what_the_model_says(
    made: Rounded, model: str, bits: int, largest: float
) -> None:
    assert 0 < made.compared[f"{model}-{bits}"]["error"] < largest


@pytest.mark.parametrize("case", ["llama-4", "llama-8"])
def test_every_linear_layer_but_the_head_is_quantized(made: Rounded, case: str) -> None:
    tensors = made.run(case).result["tensors"]
    assert tensors["quantized"] == 14
    assert tensors["left_modules"] == ["lm_head", "model.embed_tokens"]


def test_four_bits_are_nf4_quantized_twice(made: Rounded) -> None:
    config = made.config("llama-4")["quantization_config"]
    assert config["bnb_4bit_quant_type"] == "nf4"
    assert config["bnb_4bit_use_double_quant"] is True
    assert made.compared["llama-4"]["tensors"]["model.layers.0.mlp.up_proj.weight"] == "U8"


def test_eight_bits_are_int8_with_a_scale_a_row(made: Rounded) -> None:
    tensors = made.compared["llama-8"]["tensors"]
    assert tensors["model.layers.0.mlp.up_proj.weight"] == "I8"
    assert tensors["model.layers.0.mlp.up_proj.SCB"] == "F32"


def test_sizes_that_no_block_divides_are_stored_all_the_same(made: Rounded) -> None:
    assert 0 < made.compared["odd-4"]["error"] < 0.5


def test_ignored_layers_stay_and_the_config_names_them(made: Rounded) -> None:
    left = ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    assert made.run("ignoring").result["tensors"]["quantized"] == 12
    skipped = made.config("ignoring")["quantization_config"]["llm_int8_skip_modules"]
    assert set(left) < set(skipped)


def test_files_of_the_model_lie_beside_the_weights(made: Rounded) -> None:
    assert made.same_beside_the_weights("llama-4", "llama")


@pytest.mark.parametrize(
    ("case", "code", "exit_code", "names"),
    [
        ("three-bits", "quantize.bits", 2, "3-bit"),
        ("experts", "quantize.unsupported-architecture", 3, "experts"),
        ("conv1d", "quantize.unsupported-architecture", 3, "c_fc"),
        ("all-ignored", "quantize.nothing-left", 2, "ignore"),
        ("no-memory", "quantize.not-enough-memory", 3, "RAM"),
    ],
)
def test_what_cannot_be_made_is_one_error_and_leaves_nothing(
    made: Rounded, case: str, code: str, exit_code: int, names: str
) -> None:
    run = made.run(case)
    assert (run.error["code"], run.error["exit_code"]) == (code, exit_code)
    assert names in run.error["what"] + run.error["why"]
    assert run.error["fix"]
    assert not list((made.root / "out").glob(f"{case}*"))
