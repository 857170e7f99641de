"""Show that what lies on the disk is base + adapter, by reading it again.

Rows of every merged tensor are computed in float64 from the files of base and adapter and compared with what
was written; the error is measured in units in the last place (ulp) that the result's dtype has at the
size of the summed terms. What is untouched is compared with the base byte by byte.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

from streaming_merge.arithmetic import Arithmetic, ColumnFactors
from streaming_merge.checkpoint import ITEM_BYTES
from streaming_merge.direct_file import read_into
from streaming_merge.sources import Factors, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from streaming_merge.operations import Output, OutputShard, Plan, Product
    from streaming_merge.sources import Sources

SAMPLED_ROWS = 8
"""Rows of each merged tensor that are computed again."""

_BLOCK = 4 << 20


@dataclass
class Proof:
    """What was found to hold of the files in ``folder``."""

    plan: Plan
    folder: Path
    sources: Sources
    rows: int = 0
    values: int = 0
    nearest: int = 0
    changed: int = 0
    max_ulp: float = 0.0
    untouched: int = 0
    untouched_bytes: int = 0
    converted: list[str] = field(default_factory=list)

    def check(self, threads: int, report: Callable[[int], None]) -> dict[str, Any]:
        """Read everything again; gives the facts for merge_proof.json. ``report`` gets bytes checked.

        Raises:
            WorkerError: ``merge.proof-failed``, ``merge.no-effect``.
        """
        factors = Factors(self.sources, "cpu")
        arithmetic = Arithmetic(self.sources, ColumnFactors())
        with ThreadPoolExecutor(max(1, threads)) as pool:
            comparing = []
            for shard in self.plan.shards:
                fd = os.open(self.folder / shard.file, os.O_RDONLY)
                try:
                    for output, offset in zip(shard.outputs, shard.offsets, strict=False):
                        if not output.untouched:
                            self._check_rows(output, fd, offset, factors, arithmetic)
                finally:
                    os.close(fd)
                comparing.append(pool.submit(self._same_as_base, shard))
            for comparison in comparing:
                tensors, size = comparison.result()
                self.untouched += tensors
                self.untouched_bytes += size
                report(self.untouched_bytes)
        return self._facts()

    def _facts(self) -> dict[str, Any]:
        added = [
            output.name
            for shard in self.plan.shards
            for output in shard.outputs
            if output.adapter is not None and not output.merged
        ]
        return {
            "sampled_rows": self.rows,
            "max_ulp": round(self.max_ulp, 4),
            "correctly_rounded": self.nearest / self.values if self.values else None,
            "sampled_values_changed": self.changed / self.values if self.values else None,
            "all_finite": True,
            "untouched_identical": self.untouched,
            "untouched_bytes": self.untouched_bytes,
            "converted": sorted(self.converted),
            "replaced": sorted(added),
        }

    def _check_rows(
        self, output: Output, fd: int, offset: int, factors: Factors, arithmetic: Arithmetic
    ) -> None:
        import torch

        numbers = _some_rows(output)
        base = torch.stack([_row(self.sources.of(output), output.source, n) for n in numbers])
        found = torch.stack([_written_row(fd, output, offset, n) for n in numbers])
        wide = base.double()
        if not output.merged:
            if not torch.equal(found, base.to(found.dtype)):
                raise failed(f"{output.name} is not what it should have been copied from.")
            if output.adapter is None:
                self.converted.append(output.name)
            self.rows += len(numbers)
            return
        value, magnitude = _expected(output, numbers, wide, factors, arithmetic)
        error = (found.double() - value).abs()
        ulp = _ulp(value, found.dtype)
        # Half a unit for the one rounding, and float32 arithmetic, whose error is relative to the
        # terms and not to their sum, which may be near zero.
        allowed = 0.5001 * ulp + 16 * torch.finfo(torch.float32).eps * magnitude
        worst = float((error / _ulp(magnitude, found.dtype)).max())
        if not bool((error <= allowed).all()):
            raise failed(
                f"{output.name} is off by {worst:.1f} units in the last place of its terms."
            )
        self.rows += len(numbers)
        self.values += found.numel()
        self.max_ulp = max(self.max_ulp, worst)
        self.nearest += int((found == value.to(found.dtype)).sum())
        self.changed += int((found != base.to(found.dtype)).sum())

    def _same_as_base(self, shard: OutputShard) -> tuple[int, int]:
        """Compare the untouched tensors of one file; gives how many they are, and their bytes."""
        tensors, total = 0, 0
        fd = os.open(self.folder / shard.file, os.O_RDONLY)
        try:
            for output, offset in zip(shard.outputs, shard.offsets, strict=False):
                if not output.untouched:
                    continue
                source, done = self.sources.of(output), 0
                while done < output.nbytes:
                    size = min(_BLOCK, output.nbytes - done)
                    ours = os.pread(fd, size, offset + done)
                    if ours != os.pread(source, size, output.source.offset + done):
                        raise failed(f"{output.name} is untouched by the adapter and differs.")
                    done += len(ours)
                tensors, total = tensors + 1, total + output.nbytes
        finally:
            os.close(fd)
        return tensors, total


def failed(why: str) -> WorkerError:
    """The error of a merge that was made and must not be trusted."""
    return WorkerError(
        "merge.proof-failed",
        "The merged model is not base + adapter; it was removed.",
        why,
        "Serve the adapter beside its base instead, and report this with the run's log.",
        exit_code=6,
    )


def _expected(
    output: Output,
    numbers: list[int],
    base: torch.Tensor,
    factors: Factors,
    arithmetic: Arithmetic,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows ``numbers`` in float64, and the size of the terms they are a sum of."""
    import torch

    value, magnitude = base.clone(), base.abs()
    for position, number in enumerate(numbers):
        for product in output.products:
            if product.start <= number < product.stop:
                delta, size = _product_row(product, number, factors)
                value[position] += delta
                magnitude[position] += size
    for addition in output.additions:
        vector = factors.vector(addition.adapter, addition.tensor).double().reshape(1, -1)
        value += addition.scale * vector
        magnitude += (addition.scale * vector).abs()
    if output.direction is not None:
        length = factors.vector(output.direction.adapter, output.direction.magnitude)
        if output.direction.by_row:
            norm = torch.linalg.vector_norm(value, dim=1, keepdim=True)
            factor = length.double().reshape(-1)[numbers, None] / norm
        else:
            factor = arithmetic.column_factors(output).double()
        value, magnitude = value * factor, magnitude * factor.abs()
    if output.rows is not None:
        rows = factors.vector(output.rows.adapter, output.rows.tensor).double()
        for position, number in enumerate(numbers):
            if number in output.rows.indices:
                value[position] = rows[output.rows.indices.index(number)]
                magnitude[position] = value[position].abs()
    return value, magnitude


def _product_row(
    product: Product, number: int, factors: Factors
) -> tuple[torch.Tensor, torch.Tensor]:
    left = factors.matrix(product.left, left=True)[number - product.start].double()
    right = factors.matrix(product.right, left=False).double()
    scale = product.scale
    return scale * (left @ right), abs(scale) * (left.abs() @ right.abs())


def _some_rows(output: Output) -> list[int]:
    """Rows to compute again: the same for the same tensor, and some that the adapter changes."""
    import torch

    seed = int.from_bytes(hashlib.sha256(output.name.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(output.source.rows, (SAMPLED_ROWS,), generator=generator).tolist()
    if output.rows is not None:
        rows = [*output.rows.indices[:SAMPLED_ROWS], *rows]
    return sorted(set(rows))


def _row(fd: int, tensor: Any, number: int) -> torch.Tensor:  # noqa: ANN401
    return _read(fd, tensor.dtype, tensor.columns, tensor.offset, number)


def _written_row(fd: int, output: Output, offset: int, number: int) -> torch.Tensor:
    return _read(fd, output.dtype, output.source.columns, offset, number)


def _read(fd: int, dtype: str, columns: int, offset: int, number: int) -> torch.Tensor:
    import torch

    size = columns * ITEM_BYTES[dtype]
    data = bytearray(size)
    read_into(fd, memoryview(data), offset + number * size)
    return torch.frombuffer(data, dtype=torch_dtype(dtype))


def _ulp(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance between neighbouring numbers of ``dtype`` at each of ``value``."""
    import torch

    info = torch.finfo(dtype)
    exponent = torch.frexp(value.abs().clamp_min(info.tiny)).exponent - 1
    return torch.ldexp(torch.full_like(value, info.eps), exponent)
