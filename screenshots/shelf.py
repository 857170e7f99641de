"""What lies on the disk in the pictures: models with true headers and no weights, an adapter, artifacts, engines.

The files are sparse: they have the sizes that they say and take none.
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import world

CONFIG = json.loads((world.HERE / "recommend/Qwen2.5-7B/config.json").read_text(encoding="utf-8"))
"""Qwen2.5-7B's own."""
BASE = "Qwen/Qwen2.5-7B"
AWQ = "Qwen/Qwen2.5-7B-Instruct-AWQ"
_COMMIT = "d149729398750b98c0af14eb82c78cfe92750796"
_BYTES = {"BF16": 2, "F16": 2, "I32": 4}
Tensors = dict[str, tuple[str, tuple[int, ...]]]


def stock(*, engines: bool = False, artifacts: bool = False) -> None:
    """Put everything in its place, last used some days before the pictures' time."""
    _repository(BASE, CONFIG, _decoder(), days=2)
    quantized = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "version": "gemm",
        "zero_point": True,
    }
    _repository(
        AWQ, {**CONFIG, "torch_dtype": "float16", "quantization_config": quantized}, _awq(), days=12
    )
    _adapter(world.HOME / "support-lora")
    if artifacts:
        _artifact(
            "support-lora--merged--5d315813491985c7", "merged", 15_231_233_024, {}, 242, days=41
        )
        recipe = {"recipe": {"method": "awq", "producer": "llm-compressor"}}
        name = "support-lora--awq-llm-compressor-w4-g128--3f6ab6ab4cd0c9f1"
        _artifact(name, "awq-llm-compressor-w4-g128", 5_582_000_000, recipe, 1415, days=1)
        _earlier_revision(AWQ)
        _interrupted_download("google/gemma-3-12b-it", 3_221_225_472, days=3)
    if engines:
        _engine("vllm-cuda", {"vllm": "0.32.0", "torch": "2.13.0"}, 9_876_543_210, days=9)
        _engine(
            "compressor-cuda", {"llmcompressor": "0.14.0", "torch": "2.13.0"}, 6_543_210_987, days=5
        )


def _linears() -> dict[str, tuple[int, int]]:
    """(out, in) of the linear layers of one decoder layer."""
    hidden, wide = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    keys = hidden // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }


def _around(dtype: str) -> Tensors:
    """Everything but the linear layers of the decoder."""
    hidden, words = CONFIG["hidden_size"], CONFIG["vocab_size"]
    found: Tensors = {
        "model.embed_tokens.weight": (dtype, (words, hidden)),
        "model.norm.weight": (dtype, (hidden,)),
        "lm_head.weight": (dtype, (words, hidden)),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        found[f"{at}.input_layernorm.weight"] = (dtype, (hidden,))
        found[f"{at}.post_attention_layernorm.weight"] = (dtype, (hidden,))
        for name in ("q_proj", "k_proj", "v_proj"):
            out, _ = _linears()[f"self_attn.{name}"]
            found[f"{at}.self_attn.{name}.bias"] = (dtype, (out,))
    return found


def _decoder() -> Tensors:
    found = _around("BF16")
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, shape in _linears().items():
            found[f"model.layers.{layer}.{name}.weight"] = ("BF16", shape)
    return found


def _awq() -> Tensors:
    found = _around("F16")
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, (out, into) in _linears().items():
            at = f"model.layers.{layer}.{name}"
            found[f"{at}.qweight"] = ("I32", (into, out // 8))
            found[f"{at}.qzeros"] = ("I32", (into // 128, out // 8))
            found[f"{at}.scales"] = ("F16", (into // 128, out))
    return found


def _safetensors(path: Path, tensors: Tensors) -> None:
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + _BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)


def _repository(ref: str, config: dict[str, Any], tensors: Tensors, *, days: float) -> None:
    hub = Path(os.environ["HF_HOME"]) / "hub" / f"models--{ref.replace('/', '--')}"
    snapshot, blobs = hub / "snapshots" / _COMMIT, hub / "blobs"
    for folder in (snapshot, blobs, hub / "refs"):
        folder.mkdir(parents=True)
    (hub / "refs" / "main").write_text(_COMMIT, encoding="utf-8")
    made = {
        "config.json": "1" * 40,
        "tokenizer.json": "2" * 40,
        "tokenizer_config.json": "3" * 40,
        "model.safetensors": "4" * 64,
    }
    for name, blob in made.items():
        if name == "model.safetensors":
            _safetensors(blobs / blob, tensors)
        else:
            text = json.dumps(config) if name == "config.json" else '{"chat_template": "x"}'
            (blobs / blob).write_text(text, encoding="utf-8")
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    aged(hub, days)


def _adapter(folder: Path) -> None:
    folder.mkdir(parents=True)
    rank, targets = 16, tuple(_linears())
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "r": rank,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "target_modules": [name.split(".")[-1] for name in targets],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors: Tensors = {}
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, (out, into) in _linears().items():
            at = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{at}.lora_A.weight"] = ("BF16", (rank, into))
            tensors[f"{at}.lora_B.weight"] = ("BF16", (out, rank))
    _safetensors(folder / "adapter_model.safetensors", tensors)
    aged(folder, 3)


def _earlier_revision(ref: str) -> None:
    """A revision that no branch names any more: it shares all but a file with the one that ``main`` names."""
    hub = Path(os.environ["HF_HOME"]) / "hub" / f"models--{ref.replace('/', '--')}"
    (snapshot,) = (hub / "snapshots").iterdir()
    before = hub / "snapshots" / "0b1a7d2c44e3f5a69788796a5b4c3d2e1f0a9b8c"
    before.mkdir()
    for link in snapshot.iterdir():
        target = link.readlink().name
        if link.name == "tokenizer.json":
            target = "5" * 40
            (hub / "blobs" / target).write_text('{"version": "0.9"}', encoding="utf-8")
        (before / link.name).symlink_to(f"../../blobs/{target}")
    aged(hub, 12)


def _interrupted_download(ref: str, size: int, *, days: float) -> None:
    hub = Path(os.environ["HF_HOME"]) / "hub" / f"models--{ref.replace('/', '--')}"
    for folder in ("blobs", "refs", "snapshots"):
        (hub / folder).mkdir(parents=True)
    (hub / "refs" / "main").write_text(_COMMIT, encoding="utf-8")
    (hub / "blobs" / ("7" * 40)).write_text("{}", encoding="utf-8")
    (hub / "snapshots" / _COMMIT).mkdir()
    (hub / "snapshots" / _COMMIT / "config.json").symlink_to(f"../../blobs/{'7' * 40}")
    part = hub / "blobs" / f"{'6' * 64}.incomplete"
    part.touch()
    os.truncate(part, size)
    aged(hub, days)


def _artifact(
    name: str, kind: str, size: int, made: dict[str, Any], seconds: float, *, days: float
) -> None:
    folder = world.HOME / "quantui" / "artifacts" / name
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    weights.touch()
    os.truncate(weights, size)
    record = {
        "format": 1,
        "kind": kind,
        "base": "support-lora",
        "inputs": {"base": "b", "adapter": "8f2c11d07e4a"},
        "created": world.NOW - days * 86400,
        "files": {"model.safetensors": size},
        "made": made,
        "made_from": {
            "base": {"ref": BASE, "revision": _COMMIT, "path": None, "size": 15_231_233_024},
            "adapters": [
                {"ref": "support-lora", "revision": None, "path": str(world.HOME / "support-lora")}
            ],
            "command": [],
        },
        "seconds": seconds,
    }
    (folder / "quantui.json").write_text(json.dumps(record), encoding="utf-8")
    aged(folder, days)


def _engine(name: str, versions: dict[str, str], size: int, *, days: float) -> None:
    from quantui.runtime.engine_store import EngineRecord, write_record

    folder = world.HOME / "quantui" / "engines" / name
    folder.mkdir(parents=True)
    record = EngineRecord(
        name,
        "3f9a51c2d07e8b46",
        versions,
        [],
        size,
        size // 5,
        world.NOW - days * 86400,
        60.0,
        "0.1.0",
    )
    write_record(folder, record)
    library = folder / "libtorch.so"
    library.touch()
    os.truncate(library, size)
    aged(folder, days)


def aged(folder: Path, days: float) -> None:
    """Files and folders were read and written last so many days before the pictures' time."""
    at = world.NOW - days * 86400
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (at, at), follow_symlinks=False)
