"""Compare two bfloat16 checkpoints bit by bit, a block at a time.

    python compare_weights.py FOLDER FOLDER ADAPTER

Run by an engine's interpreter. Prints a JSON object: for ``linear`` (the layers the adapter is for) and ``other`` the
tensors, the elements, how many of them differ in any bit, and the largest difference in ulp; and ``unlike``, the
tensors that only one side has or that differ in dtype or shape.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from io import FileIO

BLOCK_BYTES = 1 << 23


class Place(NamedTuple):
    """Where a tensor's bytes are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


def places(folder: Path) -> dict[str, Place]:
    """Every tensor of the folder's safetensors files."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start = 8 + size + entry["data_offsets"][0]
            found[name] = Place(file, entry["dtype"], tuple(entry["shape"]), start)
    return found


def ordered(bits: torch.Tensor) -> torch.Tensor:
    """Numbers in the order of the bfloat16 values, one apart for neighbours; both zeros are 0."""
    wide = bits.to(torch.int32)
    return torch.where(wide < 0, -(wide & 0x7FFF), wide)


def read_exactly(stream: FileIO, memory: memoryview) -> None:
    """Fill ``memory``.

    Raises:
        EOFError: The file ends before.
    """
    while memory:
        count = stream.readinto(memory)
        if not count:
            raise EOFError(f"{stream.name} is cut off")
        memory = memory[count:]


def difference(left: Place, right: Place, memory: tuple[bytearray, bytearray]) -> tuple[int, int]:
    """Elements of one tensor that differ, and the largest difference in ulp."""
    differ = ulp = 0
    todo = math.prod(left.shape) * 2
    with left.file.open("rb", buffering=0) as a, right.file.open("rb", buffering=0) as b:
        a.seek(left.start)
        b.seek(right.start)
        while todo:
            size = min(todo, BLOCK_BYTES)
            for stream, buffer in zip((a, b), memory, strict=True):
                read_exactly(stream, memoryview(buffer)[:size])
            todo -= size
            if memory[0][:size] == memory[1][:size]:
                continue
            x, y = (torch.frombuffer(buffer, dtype=torch.int16)[: size // 2] for buffer in memory)
            where = x != y
            differ += int(where.sum())
            distance = (ordered(x[where]) - ordered(y[where])).abs().max()
            ulp = max(ulp, int(distance))
    return differ, ulp


def main() -> None:
    """Print the comparison."""
    left, right = (places(Path(name)) for name in sys.argv[1:3])
    linear = {
        name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        for name in places(Path(sys.argv[3]))
    }
    memory = bytearray(BLOCK_BYTES), bytearray(BLOCK_BYTES)
    zero = {"tensors": 0, "elements": 0, "differ": 0, "ulp": 0}
    found: dict[str, Any] = {"linear": dict(zero), "other": dict(zero)}
    unlike = sorted(left.keys() ^ right.keys())
    for name in sorted(left.keys() & right.keys()):
        a, b = left[name], right[name]
        if a.shape != b.shape or {a.dtype, b.dtype} != {"BF16"}:
            unlike.append(name)
            continue
        differ, ulp = difference(a, b, memory)
        group = found["linear" if name in linear else "other"]
        group["tensors"] += 1
        group["elements"] += math.prod(a.shape)
        group["differ"] += differ
        group["ulp"] = max(group["ulp"], ulp)
    print(json.dumps({**found, "unlike": unlike}))


if __name__ == "__main__":
    main()
