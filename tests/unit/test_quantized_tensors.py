"""What a quantized checkpoint holds by its headers, and which group sizes a model's layers allow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.checkpoint_folders import model_files, safetensors_bytes

WORKERS = str(Path(__file__).parents[2] / "quantui/engines/workers")
sys.path.insert(0, WORKERS)
import quantizing  # noqa: E402, F401
from quantizing import groups, outcome  # noqa: E402
from quantui_wire import WorkerError  # noqa: E402

if WORKERS in sys.path:
    sys.path.remove(WORKERS)

LAYER = "model.layers.0.mlp.down_proj"
F8 = bytes(64)


def counted(folder: Path, tensors: dict[str, Any]) -> dict[str, Any]:
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    found: dict[str, Any] = outcome.census(folder)
    return found


FORMATS = {
    "compressed-tensors": {
        f"{LAYER}.weight_packed": ("I32", (8, 1)),
        f"{LAYER}.weight_scale": ("BF16", (8, 1)),
        f"{LAYER}.weight_shape": ("I64", (2,), bytes(16)),
    },
    "fp8": {
        f"{LAYER}.weight": ("F8_E4M3", (8, 8), F8),
        f"{LAYER}.weight_scale": ("BF16", (8, 1)),
    },
    "int8": {
        f"{LAYER}.weight": ("I8", (8, 8), F8),
        f"{LAYER}.weight_scale": ("F32", (8, 1)),
    },
    "gptq and awq": {
        f"{LAYER}.qweight": ("I32", (8, 8)),
        f"{LAYER}.qzeros": ("I32", (1, 8)),
        f"{LAYER}.scales": ("F16", (1, 8)),
        f"{LAYER}.bias": ("F16", (8,)),
    },
    "bitsandbytes": {
        f"{LAYER}.weight": ("U8", (32, 1)),
        f"{LAYER}.weight.absmax": ("F32", (1,)),
        f"{LAYER}.weight.quant_map": ("F32", (16,)),
    },
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_of_each_format_counts_once(tmp_path: Path, name: str) -> None:
    found = counted(tmp_path, FORMATS[name])
    assert (found["quantized"], found["left"]) == (1, 0)


def test_matrices_left_in_16_bit_are_named_with_their_bytes(tmp_path: Path) -> None:
    left = {
        "model.embed_tokens.weight": ("BF16", (32, 16)),
        "lm_head.weight": ("F32", (32, 16)),
    }
    found = counted(tmp_path, FORMATS["fp8"] | left)
    assert found["quantized"] == 1
    assert found["left"] == 2
    assert found["left_bytes"] == 32 * 16 * 6
    assert found["left_modules"] == ["lm_head", "model.embed_tokens"]


def test_fused_experts_are_one_module_with_all_its_matrices(tmp_path: Path) -> None:
    experts = {
        "layers.0.experts.gate_up_proj": ("BF16", (2, 8, 8)),
        "layers.0.experts.down_proj": ("BF16", (2, 8, 4)),
        "layers.0.experts.down_proj_bias": ("BF16", (8,)),
    }
    found = counted(tmp_path, experts)
    assert (found["left"], found["left_bytes"]) == (1, 2 * (2 * 8 * 8 + 2 * 8 * 4))


def test_norms_and_biases_are_no_matrices(tmp_path: Path) -> None:
    found = counted(
        tmp_path, {"model.norm.weight": ("BF16", (16,)), "model.norm.bias": ("BF16", (16,))}
    )
    assert (found["quantized"], found["left"]) == (0, 0)


def test_only_some_modules_are_named(tmp_path: Path) -> None:
    tensors = {f"layers.{n:02}.weight": ("BF16", (4, 4)) for n in range(50)}
    found = counted(tmp_path, tensors)
    assert found["left"] == 50
    assert len(found["left_modules"]) == outcome.NAMED


def model(folder: Path, **files: bytes) -> Path:
    for name, content in {**model_files(hidden=64), **files}.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("size", [None, -1, 16, 32, 64])
def test_a_group_size_that_divides_every_layer_passes(tmp_path: Path, size: int | None) -> None:
    groups.check_groups(model(tmp_path), size, ("lm_head",))


@pytest.mark.parametrize("size", [128, 48, 0, -2])
def test_one_that_does_not_is_refused_with_those_that_do(tmp_path: Path, size: int) -> None:
    with pytest.raises(WorkerError) as caught:
        groups.check_groups(model(tmp_path), size, ("lm_head",))
    event = caught.value.event
    assert (event["code"], event["exit_code"]) == ("quantize.group-size", 2)
    assert "model.layers.0." in event["what"]
    assert "16, 32, 64, -1 (a whole row)" in event["fix"]


def test_an_embedding_is_no_linear_layer(tmp_path: Path) -> None:
    found = dict(groups.input_features(model(tmp_path), ()))
    assert "model.embed_tokens" not in found
    assert found["lm_head"] == 64
    assert found["model.layers.1.mlp.down_proj"] == 128


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        ("lm_head", {"lm_head"}),
        ("down_proj", {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}),
        ("model.layers.1.mlp.down_proj", {"model.layers.1.mlp.down_proj"}),
        (r"re:.*\.0\..*proj", {
            "model.layers.0.mlp.down_proj",
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.v_proj",
        }),
        ("own_proj", set()),
    ],
)  # fmt: skip
def test_what_is_ignored_is_not_asked(tmp_path: Path, entry: str, left: set[str]) -> None:
    folder = model(tmp_path)
    every = dict(groups.input_features(folder, ()))
    assert set(every) - set(dict(groups.input_features(folder, (entry,)))) == left


def test_gpt2_stores_its_weights_the_other_way_round(tmp_path: Path) -> None:
    config = json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}).encode()
    tensors = {"transformer.h.0.attn.c_attn.weight": ("BF16", (64, 96))}
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    groups.check_groups(tmp_path, 64)
    with pytest.raises(WorkerError):
        groups.check_groups(tmp_path, 48)
