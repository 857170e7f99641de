"""The values of merged tensors: float32 sums of float32 products, rounded once.

float32 throughout and a single rounding is the nearest value of the result's dtype for 99.9994 % of
elements (rounding the delta first: 94 %), and equals PEFT's default for linear layers but for a few
elements in a billion. ``addmm_`` adds the product into the widened weights without a second buffer: 1.5
GB/s of bfloat16 on one core at rank 16, where product, scale and sum apart make 0.97.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from streaming_merge.checkpoint import ITEM_BYTES
from streaming_merge.direct_file import read_into
from streaming_merge.sources import Factors, torch_dtype

if TYPE_CHECKING:
    import torch

    from streaming_merge.operations import Output
    from streaming_merge.sources import Sources

BLOCK_ELEMENTS = 262_144
"""Elements that are computed at once on a CPU: a megabyte of float32, which stays in its cache."""

GPU_BLOCK_ELEMENTS = 2 * 1024 * 1024


class NotFiniteError(Exception):
    """A merged tensor is not finite; the arguments are its name and dtype."""


class ColumnFactors:
    """DoRA by column: magnitude over norm of each column, for which a tensor is read twice.

    Shared by all threads: the first that needs a tensor's factors computes them, the others wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, torch.Tensor] = {}

    def of(self, output: Output, arithmetic: Arithmetic) -> torch.Tensor:
        """The factor of each column of ``output``, in float32."""
        with self._lock:
            if output.name not in self._found:
                self._found[output.name] = arithmetic.column_factors(output)
            return self._found[output.name]


class Arithmetic:
    """One thread's computing; its buffers are used again for every block."""

    def __init__(self, sources: Sources, columns: ColumnFactors, device: str = "cpu") -> None:
        self.device = device
        self._sources = sources
        self._columns = columns
        self._factors = Factors(sources, device)
        self._raw = bytearray()
        self._views: dict[str, torch.Tensor] = {}
        self._wide: torch.Tensor | None = None

    def compute(self, output: Output, first: int, last: int, into: memoryview) -> float:
        """Elements ``first`` to ``last`` of ``output``, as its dtype, into ``into``.

        Whole rows are computed, those at the ends too of which only a part is wanted. Returns the sum
        of squares of what DoRA changed of them, and 0 for all else, whose change the factors tell.

        Raises:
            NotFiniteError
        """
        import torch

        width = output.source.columns
        size = GPU_BLOCK_ELEMENTS if self.device != "cpu" else BLOCK_ELEMENTS
        step = max(1, size // width)
        target = torch.frombuffer(into, dtype=torch_dtype(output.dtype))
        squares = 0.0
        if output.direction is not None and not output.direction.by_row:
            # Before a block is read: what finds the factors uses the same buffer for every row.
            self._columns.of(output, self)
        start, stop = first // width, -(-last // width)
        for low in range(start, stop, step):
            high = min(low + step, stop)
            block = self._rows(output, low, high)
            before = block.clone() if output.direction is not None else None
            self._add(output, block, low, high)
            # Of the rows at the ends a part may be wanted.
            begin, end = max(first, low * width), min(last, high * width)
            part = slice(begin - low * width, end - low * width)
            flat = block.view(-1)[part]
            if not _is_finite(flat, target.dtype):
                raise NotFiniteError(output.name, output.dtype)
            if before is not None:
                change = flat - before.view(-1)[part]
                squares += float(torch.linalg.vector_norm(change, dtype=torch.float64)) ** 2
            target[begin - first : end - first].copy_(flat)
        return squares

    def _rows(self, output: Output, low: int, high: int) -> torch.Tensor:
        """Rows of the source, widened to float32, in this thread's buffer."""
        source = output.source
        width, item = source.columns, ITEM_BYTES[source.dtype]
        count = (high - low) * width
        raw, stored = self._stored(source.dtype, count * item)
        read_into(self._sources.of(output), raw, source.offset + low * width * item)
        if self.device != "cpu":
            return stored[:count].to(self.device).float().view(high - low, width)
        return self._float32(count).copy_(stored[:count]).view(high - low, width)

    def _stored(self, dtype: str, size: int) -> tuple[memoryview, torch.Tensor]:
        """``size`` bytes to read into, and the buffer that they begin, seen as ``dtype``."""
        import torch

        if len(self._raw) < size:
            self._raw = bytearray(size)
            self._views.clear()
        if dtype not in self._views:
            whole = len(self._raw) // ITEM_BYTES[dtype] * ITEM_BYTES[dtype]
            view = memoryview(self._raw)[:whole]
            self._views[dtype] = torch.frombuffer(view, dtype=torch_dtype(dtype))
        return memoryview(self._raw)[:size], self._views[dtype]

    def _float32(self, count: int) -> torch.Tensor:
        import torch

        if self._wide is None or self._wide.numel() < count:
            self._wide = torch.empty(count, dtype=torch.float32)
        return self._wide[:count]

    def _add(self, output: Output, block: torch.Tensor, low: int, high: int) -> None:
        import torch

        self._add_products(output, block, low, high)
        for addition in output.additions:
            vector = self._factors.vector(addition.adapter, addition.tensor)
            block.add_(vector.reshape(1, -1), alpha=addition.scale)
        if output.direction is not None:
            magnitude = self._factors.vector(output.direction.adapter, output.direction.magnitude)
            if output.direction.by_row:
                norm = torch.linalg.vector_norm(block, dim=1)
                block.mul_((magnitude.reshape(-1)[low:high] / norm).unsqueeze(1))
            else:
                block.mul_(self._columns.of(output, self).to(self.device))
        if output.rows is not None:
            values = self._factors.vector(output.rows.adapter, output.rows.tensor)
            for position, index in enumerate(output.rows.indices):
                if low <= index < high:
                    block[index - low].copy_(values[position])

    def _add_products(self, output: Output, block: torch.Tensor, low: int, high: int) -> None:
        for product in output.products:
            begin, end = max(low, product.start), min(high, product.stop)
            if begin >= end:
                continue
            left = self._factors.matrix(product.left, left=True)
            right = self._factors.matrix(product.right, left=False)
            rows = left[begin - product.start : end - product.start]
            block[begin - low : end - low].addmm_(rows, right, alpha=product.scale)

    def column_factors(self, output: Output) -> torch.Tensor:
        """DoRA's factor of each column: its magnitude over the norm of base and delta together."""
        import torch

        assert output.direction is not None
        width, height = output.source.columns, output.source.rows
        step = max(1, BLOCK_ELEMENTS // width)
        squares = torch.zeros(width, dtype=torch.float64)
        for low in range(0, height, step):
            high = min(low + step, height)
            block = self._rows(output, low, high)
            self._add_products(output, block, low, high)
            squares += block.double().square().sum(dim=0).cpu()
        magnitude = self._sources.adapter_tensor(
            output.direction.adapter, output.direction.magnitude
        )
        return (magnitude.reshape(-1).double() / squares.sqrt()).float()


def _is_finite(values: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether ``dtype`` can hold every one of ``values``, float32 and flat.

    Where their sum of squares is below the square of its largest number, each of them is; a third of
    the time that looking at each takes.
    """
    import torch

    limit = torch.finfo(dtype).max
    if float(torch.dot(values, values)) < 0.99 * min(limit * limit, _FLOAT32_MAX):
        return True
    least, most = torch.aminmax(values)
    return bool(float(least) >= -limit and float(most) <= limit)


_FLOAT32_MAX = 3.4028234663852886e38
