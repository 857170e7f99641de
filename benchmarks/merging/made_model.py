"""A checkpoint of any size and a LoRA adapter for it, written to disk block by block.

    python made_model.py JOB

Run by an engine's interpreter. Job: ``out`` (folder to create), ``shape`` (see :class:`Shape`), ``limit`` (bytes of a
shard), ``rank``. Gives ``out/base`` (Qwen2, bfloat16, no tokenizer) and ``out/adapter`` (every linear layer, float32,
as PEFT saves it). Memory does not depend on the size: 32 MiB of blocks beside torch.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Fill = Callable[[torch.Tensor, str, tuple[int, ...]], object]

Tensors = list[tuple[str, tuple[int, ...]]]
"""Names and shapes, in the order of the file."""

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
STD = 0.02
"""Of the weights: Qwen2's own ``initializer_range``."""
LORA_B_STD = 0.01
"""A delta of about a twentieth of the weights, as a trained adapter's is."""
BLOCK = 1 << 22
"""Elements made at once."""
BYTES = {"BF16": 2, "F32": 4}


@dataclass(frozen=True)
class Shape:
    """A Qwen2 with its output embedding tied to its input embedding."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int = 151_936

    def linear(self) -> dict[str, tuple[int, int]]:
        """Module path and (out, in) of each linear layer."""
        head = self.hidden // self.heads
        q, kv, wide = head * self.heads, head * self.kv_heads, self.intermediate
        block = {
            "self_attn.q_proj": (q, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, q),
            "mlp.gate_proj": (wide, self.hidden),
            "mlp.up_proj": (wide, self.hidden),
            "mlp.down_proj": (self.hidden, wide),
        }
        return {
            f"model.layers.{number}.{name}": size
            for number in range(self.layers)
            for name, size in block.items()
        }

    def tensors(self) -> Tensors:
        """What the checkpoint holds, in the order in which transformers saves it."""
        found: Tensors = [("model.embed_tokens.weight", (self.vocabulary, self.hidden))]
        for name, size in self.linear().items():
            found.append((f"{name}.weight", size))
            if name.endswith(("q_proj", "k_proj", "v_proj")):
                found.append((f"{name}.bias", size[:1]))
            if name.endswith("down_proj"):
                layer = name.removesuffix(".mlp.down_proj")
                for norm in ("input_layernorm", "post_attention_layernorm"):
                    found.append((f"{layer}.{norm}.weight", (self.hidden,)))
        return [*found, ("model.norm.weight", (self.hidden,))]

    @property
    def parameters(self) -> int:
        """Of the base, without the adapter."""
        return sum(math.prod(shape) for _, shape in self.tensors())


# Qwen2.5's own shapes of 0.5, 1.5 and 3 B; a smaller one for trying things, a larger one beyond.
_LADDER = (
    (0.2e9, Shape(256, 1, 1408, 4, 2)),
    (0.75e9, Shape(896, 1, 4864, 14, 2)),
    (1.75e9, Shape(1536, 1, 8960, 12, 2)),
    (4.0e9, Shape(2048, 1, 11008, 16, 2)),
    (math.inf, Shape(3072, 1, 16384, 24, 4)),
)
TINY = Shape(64, 2, 128, 4, 2, vocabulary=512)


def shape_of(parameters: float) -> Shape:
    """The shape nearest to so many parameters: a width of the ladder, with as many layers as it takes."""
    one = next(shape for most, shape in _LADDER if parameters <= most)
    embedding = one.vocabulary * one.hidden
    layer = one.parameters - embedding
    return Shape(
        one.hidden,
        max(1, round((parameters - embedding) / layer)),
        one.intermediate,
        one.heads,
        one.kv_heads,
    )


def sharded(tensors: Tensors, limit: int) -> list[Tensors]:
    """Shards of at most ``limit`` bytes, filled as transformers fills them (one larger tensor is a shard)."""
    alone: list[Tensors] = []
    shards: list[Tensors] = [[]]
    used = 0
    for name, shape in tensors:
        size = math.prod(shape) * BYTES["BF16"]
        if size > limit:
            alone.append([(name, shape)])
            continue
        if used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append((name, shape))
        used += size
    return [shard for shard in (*alone, *shards) if shard]


def limit_for(tensors: Tensors, shards: int) -> int:
    """The least bytes a shard may have for at most ``shards`` shards."""
    low, high = 1, sum(math.prod(shape) for _, shape in tensors) * BYTES["BF16"]
    while low < high:
        middle = (low + high) // 2
        if len(sharded(tensors, middle)) <= shards:
            high = middle
        else:
            low = middle + 1
    return high


def write_file(path: Path, tensors: Tensors, dtype: str, fill: Fill) -> None:
    """Write a safetensors file whose values ``fill`` makes, a block at a time."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors:
        size = math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    # Torch writes into memory that Python can hand to the file: not every engine has numpy.
    memory = bytearray(BLOCK * BYTES[dtype])
    stored = torch.frombuffer(memory, dtype=torch.bfloat16 if dtype == "BF16" else torch.float32)
    values = torch.empty(BLOCK)
    with path.open("wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            left = math.prod(shape)
            while left:
                count = min(left, BLOCK)
                fill(values[:count], name, shape)
                stored[:count].copy_(values[:count])
                view = memoryview(memory)[: count * BYTES[dtype]]
                while view:
                    view = view[file.write(view) :]
                left -= count


def write_base(folder: Path, shape: Shape, limit: int) -> None:
    """The checkpoint: shards, index and config."""
    import torch
    from transformers import Qwen2Config

    random = torch.Generator().manual_seed(0)

    def fill(values: torch.Tensor, name: str, _: tuple[int, ...]) -> None:
        values.normal_(1.0 if name.endswith("norm.weight") else 0.0, STD, generator=random)

    folder.mkdir(parents=True)
    shards = sharded(shape.tensors(), limit)
    places: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        write_file(folder / name, tensors, "BF16", fill)
        places.update(dict.fromkeys((tensor for tensor, _ in tensors), name))
    if len(shards) > 1:
        size = shape.parameters * BYTES["BF16"]
        index = {"metadata": {"total_size": size}, "weight_map": places}
        text = json.dumps(index, indent=2)
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=True,
        dtype="bfloat16",
        architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(folder)


def write_adapter(folder: Path, base: Path, shape: Shape, rank: int) -> None:
    """The adapter, with PEFT's own config file."""
    import torch
    from peft import LoraConfig

    random = torch.Generator().manual_seed(1)

    def fill(values: torch.Tensor, name: str, size: tuple[int, ...]) -> None:
        if name.endswith("lora_A.weight"):
            # kaiming_uniform with a = sqrt(5), as PEFT begins A.
            bound = size[1] ** -0.5
            values.uniform_(-bound, bound, generator=random)
        else:
            values.normal_(0.0, LORA_B_STD, generator=random)

    tensors: Tensors = []
    for name, (rows, columns) in shape.linear().items():
        tensors.append((f"base_model.model.{name}.lora_A.weight", (rank, columns)))
        tensors.append((f"base_model.model.{name}.lora_B.weight", (rows, rank)))
    LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(LINEAR_LAYERS),
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
        inference_mode=True,
    ).save_pretrained(folder)
    write_file(folder / "adapter_model.safetensors", tensors, "F32", fill)


def main() -> None:
    """Make the folder of the job whole, or not at all."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out, shape = Path(job["out"]), Shape(**job["shape"])
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_base(partial / "base", shape, job["limit"])
    write_adapter(partial / "adapter", out / "base", shape, job["rank"])
    partial.rename(out)


if __name__ == "__main__":
    main()
