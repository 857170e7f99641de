"""The header of a safetensors file: names, dtypes and shapes, without reading a weight.

The format is a little-endian u64 length, that many bytes of JSON, then the data, which the tensors
cover without holes or overlap (https://github.com/huggingface/safetensors#format). Files come from
strangers: every number is checked before it is used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import QuantuiError
from quantui.domain.models import DTYPE_BITS, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself (``MAX_HEADER_SIZE``)."""

_LFS_POINTER = b"version https://git-lfs"
_MAX_DIMENSIONS = 64


def read_header(path: Path, shard: str, *, without_data: bool = False) -> tuple[TensorInfo, ...]:
    """The tensors of the file at ``path``, which messages call ``shard``, in file order.

    ``without_data`` accepts a file that ends after its header, or within the data. Raises
    QuantuiError ``safetensors.*`` for a file that is cut short or is not what it says, and
    ``checkpoint.lfs-pointer`` for a git clone without its large files.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if (prefix + file.read(64)).startswith(_LFS_POINTER):
            raise QuantuiError(
                "checkpoint.lfs-pointer",
                f"{shard} is a git-lfs pointer, not the weights.",
                "The repository was cloned without its large files.",
                "Run `git lfs pull` in that folder, or give quantui the Hub id.",
            )
        check_length(length, size, shard)
        file.seek(8)
        raw = file.read(length)
    return parse_header(raw, None if without_data else size, shard)


def check_length(length: int, file_size: int, shard: str) -> None:
    """Refuse a header length that the file cannot hold, before allocating anything of that size."""
    if file_size < 8:
        raise _truncated(shard, f"It has {file_size} bytes; a safetensors file has 8 at least.")
    if length > MAX_HEADER_BYTES:
        raise QuantuiError(
            "safetensors.header-too-large",
            f"{shard} is not a safetensors file, or it is damaged.",
            f"Its first 8 bytes announce a header of {length} bytes; the limit is "
            f"{MAX_HEADER_BYTES}.",
            "Download the file again, or check how it was made.",
        )
    if length + 8 > file_size:
        raise _truncated(shard, f"Its header of {length} bytes does not fit in {file_size} bytes.")


def parse_header(raw: bytes, file_size: int | None, shard: str) -> tuple[TensorInfo, ...]:
    """The tensors that the header JSON ``raw`` of a file of ``file_size`` bytes describes.

    With a size of None the data behind the header is not asked for.
    """
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(shard, f"Its header is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise _bad(shard, "Its header is not a JSON object.")
    return tensors_of(entries, None if file_size is None else file_size - 8 - len(raw), shard)


def tensors_of(
    entries: Mapping[str, Any], data_bytes: int | None, shard: str
) -> tuple[TensorInfo, ...]:
    """Check header entries against the ``data_bytes`` that follow the header (None: any); in file order."""
    found: list[tuple[int, int, TensorInfo]] = []
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            raise _bad(shard, f"Tensor {name!r} is not described by a JSON object.")
        found.append(_tensor(name, entry, shard))
    found.sort(key=lambda item: (item[0], item[1]))
    position = 0
    for begin, end, tensor in found:
        if begin != position:
            kind = "overlaps another tensor" if begin < position else "leaves a hole before it"
            raise QuantuiError(
                "safetensors.bad-offsets",
                f"{shard} is damaged: tensor {tensor.name!r} {kind}.",
                f"It begins at byte {begin} of the data; {position} was expected.",
                "Download the file again, or check how it was made.",
            )
        position = end
    if data_bytes is None:
        data_bytes = position
    if position > data_bytes:
        raise _truncated(
            shard, f"Its header describes {position} bytes of weights; {data_bytes} are there."
        )
    if position < data_bytes:
        raise QuantuiError(
            "safetensors.bad-offsets",
            f"{shard} is damaged: {data_bytes - position} bytes at its end belong to no tensor.",
            f"Its header describes {position} bytes of weights; {data_bytes} are there.",
            "Download the file again, or check how it was made.",
        )
    return tuple(tensor for _, _, tensor in found)


def _tensor(name: str, entry: dict[str, Any], shard: str) -> tuple[int, int, TensorInfo]:
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise QuantuiError(
            "safetensors.unknown-dtype",
            f"{shard}: tensor {name!r} has the dtype {dtype!r}, which is not known.",
            f"Known are {', '.join(sorted(DTYPE_BITS))}.",
            "Check how the file was made, or update quantui.",
        )
    sizes, span = _sizes(shape), _sizes(offsets)
    if sizes is None or len(sizes) > _MAX_DIMENSIONS:
        raise _bad(shard, f"Tensor {name!r} has no valid shape.")
    if span is None or len(span) != 2 or span[0] > span[1]:
        raise _bad(shard, f"Tensor {name!r} has no valid data_offsets.")
    tensor = TensorInfo(name, dtype, sizes, shard)
    begin, end = span
    if tensor.nbytes != end - begin:
        raise _bad(
            shard,
            f"Tensor {name!r} of shape {list(sizes)} and dtype {dtype} takes {tensor.nbytes} "
            f"bytes; its offsets span {end - begin}.",
        )
    return begin, end, tensor


def _sizes(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list | tuple):
        return None
    if any(type(item) is not int or not 0 <= item < 2**63 for item in value):
        return None
    return tuple(value)


def _bad(shard: str, why: str) -> QuantuiError:
    return QuantuiError(
        "safetensors.bad-header",
        f"{shard} is not a safetensors file, or it is damaged.",
        why,
        "Download the file again, or check how it was made.",
    )


def _truncated(shard: str, why: str) -> QuantuiError:
    return QuantuiError(
        "safetensors.truncated",
        f"{shard} is cut short.",
        why,
        "Download or copy the file again: the earlier transfer did not finish.",
    )
