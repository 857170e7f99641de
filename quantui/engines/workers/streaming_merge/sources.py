"""The open files of base and adapters, and the adapters' matrices as they are multiplied."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streaming_merge.checkpoint import ITEM_BYTES
from streaming_merge.direct_file import read_into

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Tensor
    from streaming_merge.operations import Factor, Output


_BLOCK_ELEMENTS = 1 << 20


def torch_dtype(name: str) -> Any:  # noqa: ANN401
    """torch's dtype for a safetensors one (``BF16``)."""
    import torch

    return {
        "BF16": torch.bfloat16,
        "F16": torch.float16,
        "F32": torch.float32,
        "F64": torch.float64,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }[name]


class Sources:
    """File descriptors of the base's shards and the adapters' files; shared by all threads."""

    def __init__(self, folder: Path, adapters: Sequence[AdapterFile]) -> None:
        self._folder = folder
        self.adapters = tuple(adapters)
        self._base: dict[str, int] = {}
        self._adapter = [os.open(a.shard.path, os.O_RDONLY) for a in self.adapters]
        self._tensors = [a.tensors for a in self.adapters]

    def open_base(self, files: Sequence[str]) -> None:
        """Open the base's shards ``files``; before threads use them."""
        for file in files:
            if file not in self._base:
                fd = os.open(self._folder / file, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                self._base[file] = fd

    def base(self, file: str) -> int:
        """The open shard ``file`` of the base."""
        return self._base[file]

    def of(self, output: Output) -> int:
        """The open file that ``output.source`` is in."""
        if output.adapter is not None:
            return self._adapter[output.adapter]
        return self._base[output.source.file]

    def adapter_tensor(self, adapter: int, name: str) -> torch.Tensor:
        """A tensor of an adapter, in float32 and in its shape."""
        tensor = self._tensors[adapter][name]
        return read_tensor(self._adapter[adapter], tensor).float().reshape(tensor.shape)

    def adapter_blocks(self, adapter: int, name: str) -> Iterator[torch.Tensor]:
        """The values of an adapter's tensor, flat, in float32, a few megabytes at a time."""
        tensor = self._tensors[adapter][name]
        item, count = ITEM_BYTES[tensor.dtype], tensor.rows * tensor.columns
        for start in range(0, count, _BLOCK_ELEMENTS):
            size = min(_BLOCK_ELEMENTS, count - start)
            place = tensor.offset + start * item
            part = replace(tensor, shape=(size,), offset=place)
            yield read_tensor(self._adapter[adapter], part).float()

    def close(self) -> None:
        """Close all."""
        for fd in (*self._base.values(), *self._adapter):
            os.close(fd)
        self._base.clear()
        self._adapter.clear()


def read_tensor(fd: int, tensor: Tensor) -> torch.Tensor:
    """``tensor`` from its open file, flat, in its own dtype."""
    import torch

    if tensor.nbytes == 0:
        return torch.empty(0, dtype=torch_dtype(tensor.dtype))
    data = bytearray(tensor.nbytes)
    read_into(fd, memoryview(data), tensor.offset)
    return torch.frombuffer(data, dtype=torch_dtype(tensor.dtype))


class Factors:
    """One thread's matrices: the last pair of each adapter, cut and turned as it is multiplied."""

    def __init__(self, sources: Sources, device: str) -> None:
        self._sources = sources
        self._device = device
        self._kept = 2 * len(sources.adapters)
        self._tensors: OrderedDict[tuple[int, str], torch.Tensor] = OrderedDict()
        self._ready: OrderedDict[Factor, torch.Tensor] = OrderedDict()

    def vector(self, adapter: int, name: str) -> torch.Tensor:
        """A tensor that is used as it is: a magnitude, a bias, rows of tokens."""
        return self._tensor(adapter, name)

    def matrix(self, factor: Factor, *, left: bool) -> torch.Tensor:
        """``factor`` in float32: (rows, rank) on the left, (rank, columns) on the right."""
        found = self._ready.get(factor)
        if found is None:
            found = self._cut(factor, left=left)
            self._ready[factor] = found
            while len(self._ready) > self._kept:
                self._ready.popitem(last=False)
        else:
            self._ready.move_to_end(factor)
        return found

    def _cut(self, factor: Factor, *, left: bool) -> torch.Tensor:
        stored = self._tensor(factor.adapter, factor.tensor)
        if factor.experts > 1 and factor.half == "A":
            stored = stored.reshape(factor.experts, -1, stored.shape[-1])[factor.expert]
        elif factor.experts > 1:
            stored = stored.reshape(stored.shape[0], -1, factor.experts)[:, :, factor.expert]
        turned = stored.T if factor.transposed else stored
        axis = 0 if left else 1
        return turned.narrow(axis, factor.start, factor.stop - factor.start).contiguous()

    def _tensor(self, adapter: int, name: str) -> torch.Tensor:
        key = (adapter, name)
        if key not in self._tensors:
            while len(self._tensors) >= self._kept:
                self._tensors.popitem(last=False)
            self._tensors[key] = self._sources.adapter_tensor(adapter, name).to(self._device)
        self._tensors.move_to_end(key)
        return self._tensors[key]
