"""torchao's worker: HQQ weights say nearly what the model says. Only with QUANTUI_TEST_ALL_PRODUCERS=1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures.rounded import Rounded, recipe, round_all

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]


def asked(model: str, bits: int = 4, **settings: Any) -> dict[str, Any]:
    return {"model": model, "recipe": recipe("torchao", "torchao", bits, **settings)}


CASES = {
    **{f"{name}-4": asked(name, group_size=32) for name in ("llama", "qwen2-tied", "gemma")},
    **{f"{name}-8": asked(name, 8, group_size=32) for name in ("llama", "qwen2-tied", "gemma")},
    "default-group": asked("llama"),
    "rows": asked("llama", group_size=-1),
    "ignoring": asked("llama", group_size=32, ignore=["lm_head", "down_proj"]),
    "odd": asked("odd", group_size=32),
    "three-bits": asked("llama", 3),
    "asymmetric": asked("llama", symmetric=False),
    "experts": asked("mixtral", group_size=32),
}


@pytest.fixture(scope="module")
def made(torchao_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Rounded:
    root = tmp_path_factory.mktemp("torchao")
    return round_all(torchao_engine.python, "quantize_torchao", CASES, root)


@pytest.mark.parametrize("model", ["llama", "qwen2-tied", "gemma"])
@pytest.mark.parametrize(("bits", "largest"), [(4, 0.5), (8, 0.04)])
def test_what_is_stored_says_nearly_what_the_model_says(
    made: Rounded, model: str, bits: int, largest: float
) -> None:
    assert 0 < made.compared[f"{model}-{bits}"]["error"] < largest


@pytest.mark.parametrize(("case", "group"), [("llama-4", 32), ("default-group", 128)])
def test_the_config_says_how_it_was_made(made: Rounded, case: str, group: int) -> None:
    config = made.config(case)["quantization_config"]
    settings = config["quant_type"]["default"]["_data"]
    assert config["quant_method"] == "torchao"
    assert settings["granularity"]["_data"]["group_size"] == group
    assert settings["intx_choose_qparams_algorithm"] == "hqq_scale_only"
    assert settings["weight_dtype"]["_data"] == "int4"


def test_one_scale_a_row_where_the_group_is_the_row(made: Rounded) -> None:
    assert made.run("rows").result["recipe"]["group_size"] == -1
    assert 0 < made.compared["rows"]["error"] < 0.6


def test_four_bits_take_as_much_as_eight_and_a_notice_says_so(made: Rounded) -> None:
    assert made.compared["llama-4"]["tensors"] == made.compared["llama-8"]["tensors"]
    assert made.run("llama-4").result["recipe"]["stored_bits"] == 8
    assert any("one a byte" in text for text in made.notices("llama-4"))
    assert not made.notices("llama-8")


def test_ignored_layers_stay_in_16_bit(made: Rounded) -> None:
    tensors = made.run("ignoring").result["tensors"]
    assert tensors["quantized"] == 12
    assert "model.layers.1.mlp.down_proj" in tensors["left_modules"]


def test_files_of_the_model_lie_beside_the_weights(made: Rounded) -> None:
    assert made.same_beside_the_weights("llama-4", "llama")


@pytest.mark.parametrize(
    ("case", "code", "exit_code", "names"),
    [
        ("odd", "quantize.group-size", 2, "down_proj"),
        ("three-bits", "quantize.option", 2, "3-bit"),
        ("asymmetric", "quantize.option", 2, "asymmetric"),
        ("experts", "quantize.unsupported-architecture", 3, "experts"),
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
