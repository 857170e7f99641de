"""Checkpoints as their safetensors headers describe them: where each tensor lies, byte for byte.

The format: a little-endian u64 length, that many bytes of JSON, then the data
(https://github.com/huggingface/safetensors#format). Standard library alone: reading the headers of a
thousand shards costs no torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element by safetensors dtype. Those below a byte only occur in quantized models."""

MERGEABLE = frozenset({"F16", "BF16", "F32"})
"""Dtypes of weights that an adapter can be merged into."""

INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library (``MAX_HEADER_SIZE``)."""


@dataclass(frozen=True)
class Tensor:
    """One stored tensor: ``nbytes`` from ``offset`` of ``file``, row-major, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def rows(self) -> int:
        """Rows when every axis but the last is flattened; a vector is one row."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Length of the last axis; 1 for a scalar."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its tensors in the order of their data, and its header bytes."""

    path: Path
    tensors: tuple[Tensor, ...]
    header: bytes
    """Everything before the data, the eight bytes of its length included."""
    metadata: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of the file as its header describes it."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder: config, shards and, where there is one, the index as stored."""

    folder: Path
    config: dict[str, Any]
    shards: tuple[Shard, ...]
    index: dict[str, Any] | None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``; nothing but config, index and headers is read.

    Raises:
        WorkerError: ``model.bad-config``, ``merge.no-safetensors``, ``model.damaged``,
            ``merge.quantized-base``.
    """
    config = read_config(folder)
    refuse_quantized(config, folder)
    files, index = weight_files(folder)
    if not files:
        raise WorkerError(
            "merge.no-safetensors",
            f"{folder} holds no safetensors weights.",
            "Pickled weights (.bin, .pt) are not read: a pickle can run any code.",
            "Use the safetensors files of this model.",
            exit_code=2,
        )
    shards = tuple(read_shard(file) for file in files)
    seen: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in seen:
                cause = f"{seen[tensor.name]} holds {tensor.name!r} too"
                raise damaged(shard.path, cause)
            seen[tensor.name] = tensor.file
            if tensor.dtype.startswith("F8"):
                raise _quantized(folder, f"{tensor.name} is stored as {tensor.dtype}", "fp8")
    return Checkpoint(folder, config, shards, index)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of ``folder``.

    Raises:
        WorkerError: ``model.bad-config``.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise WorkerError(
            "model.bad-config",
            f"{path} cannot be read.",
            str(error),
            "Name a folder that holds a model as transformers saves it.",
            exit_code=2,
        ) from error
    return config


def weight_files(folder: Path) -> tuple[list[Path], dict[str, Any] | None]:
    """The safetensors files of a checkpoint, and its index: those it names, else every one there.

    Raises:
        WorkerError: ``model.damaged``: the index names a file that is missing or outside the folder.
    """
    path = folder / INDEX
    if not path.exists():
        single = folder / "model.safetensors"
        return ([single] if single.exists() else sorted(folder.glob("*.safetensors"))), None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise damaged(path, f"it names {name!r}, which is not a file of this folder")
    return [folder / name for name in names], index


def read_shard(path: Path) -> Shard:
    """The header of the safetensors file at ``path``, every number of it checked.

    Raises:
        WorkerError: ``model.damaged``.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError("it is no safetensors file, or is cut off")
            raw = file.read(length)
        entries = json.loads(raw)
        if not isinstance(entries, dict):
            raise TypeError("its header is not a JSON object")
        metadata = entries.pop("__metadata__", None) or {}
        start = 8 + length
        tensors = [_tensor(name, entry, path.name, start) for name, entry in entries.items()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            raise damaged(path, f"there is a hole or an overlap before {tensor.name!r}")
        position += tensor.nbytes
    if position != size:
        raise damaged(path, f"it has {size} bytes where its header describes {position}")
    return Shard(path, tuple(tensors), prefix + raw, metadata)


def _tensor(name: str, entry: dict[str, Any], file: str, start: int) -> Tensor:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if entry["dtype"] not in ITEM_BYTES:
        raise ValueError(f"{name!r} has the dtype {entry['dtype']!r}")
    if not all(type(size) is int and size >= 0 for size in (begin, end, *shape)):
        raise ValueError(f"{name!r} has no valid shape")
    tensor = Tensor(name, entry["dtype"], shape, file, start + begin)
    if tensor.nbytes != end - begin:
        raise ValueError(f"{name!r} takes {tensor.nbytes} bytes and spans {end - begin}")
    return tensor


def header_bytes(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """The header of a file that holds ``tensors`` (name, dtype, shape) in this order.

    Padded with spaces to a multiple of eight, as the safetensors library does.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        end = position + math.prod(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def refuse_quantized(config: dict[str, Any], folder: Path) -> None:
    """Refuse a base whose config says that its weights are packed.

    Raises:
        WorkerError: ``merge.quantized-base``.
    """
    for part in (config, config.get("text_config") or {}):
        quantization = part.get("quantization_config")
        if not isinstance(quantization, dict) or not quantization:
            continue
        kind = str(quantization.get("quant_method", "unknown"))
        if quantization.get("load_in_4bit") or quantization.get("bnb_4bit_quant_type"):
            kind = "bitsandbytes 4 bit"
        raise _quantized(folder, f"its quantization_config says {kind}", kind)


def _quantized(folder: Path, why: str, kind: str) -> WorkerError:
    way_out = "Merge into the 16-bit base this one was made from, and quantize the result."
    if kind in {"fp8", "mxfp4", "compressed-tensors", "fbgemm_fp8"}:
        # Some are published in few bits alone: gpt-oss, DeepSeek.
        way_out = (
            "Merge into a 16-bit copy and quantize the result. Where none is published, transformers "
            "makes one: load it with the quantization config's dequantize=True and save_pretrained()."
        )
    return WorkerError(
        "merge.quantized-base",
        f"{folder} is quantized: {why}.",
        "Rounding to so few bits again would lose the adapter's small changes.",
        way_out,
        exit_code=2,
    )


def damaged(path: Path, cause: object) -> WorkerError:
    """The error of a file that is not what its name says."""
    return WorkerError(
        "model.damaged",
        f"{path} cannot be read as a checkpoint.",
        f"{cause}",
        "Download it again; a download that was cut off leaves such files.",
        exit_code=2,
    )
