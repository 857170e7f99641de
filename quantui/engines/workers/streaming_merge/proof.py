"""Show that what lies on the disk is base + adapter, by reading it again.

Rows of every merged tensor are computed in float64 from the files of base and adapter and compared with what
was written; the error is measured in units in the last place (ulp) that the result's dtype has at the
size of the summed terms. What is untouched is compared with the base byte by byte.
"""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streaming_merge.arithmetic import Arithmetic, ColumnFactors
from streaming_merge.checkpoint import ITEM_BYTES
from streaming_merge.direct_file import read_into
from streaming_merge.refusals import proof_failed
from streaming_merge.sources import Factors, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from streaming_merge.operations import Output, OutputShard, Plan
    from streaming_merge.sources import Sources

SAMPLED_ROWS = 8
"""Rows of each merged tensor that are computed again."""

_BLOCK = 1 << 18


@dataclass
class ShardProof:
    """What was found in one file."""

    rows: int = 0
    values: int = 0
    nearest: int = 0
    changed: int = 0
    max_ulp: float = 0.0
    untouched: int = 0
    untouched_bytes: int = 0
    converted: list[str] = field(default_factory=list)


class _Reader:
    """One thread's way to the values of base and adapters."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.factors = Factors(sources, "cpu")
        self.arithmetic = Arithmetic(sources, ColumnFactors())


@dataclass
class Proof:
    """Checks the files in ``folder`` that ``plan`` says what to expect of."""

    plan: Plan
    folder: Path
    sources: Sources
    _found: dict[str, ShardProof] = field(default_factory=dict)
    _computing: threading.Lock = field(default_factory=threading.Lock)
    """Held while rows are computed: a dozen float64 copies of them are enough once."""

    def check(self, threads: int, report: Callable[[int], None]) -> dict[str, Any]:
        """Read again what :meth:`check_shard` has not; gives the facts for merge_proof.json.

        ``report`` gets the untouched bytes checked so far.

        Raises:
            WorkerError: ``merge.proof-failed``.
        """
        with ThreadPoolExecutor(max(1, threads)) as pool:
            try:
                left = [shard for shard in self.plan.shards if shard.file not in self._found]
                for _ in pool.map(self.check_shard, left):
                    report(sum(shard.untouched_bytes for shard in self._found.values()))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return self._facts()

    def check_shard(self, shard: OutputShard) -> None:
        """Read one finished file again; from any thread.

        Raises:
            WorkerError: ``merge.proof-failed``.
        """
        found = ShardProof()
        reader = _Reader(self.sources)
        fd = os.open(self.folder / shard.file, os.O_RDONLY)
        try:
            header = os.pread(fd, len(shard.header), 0)
            if header != shard.header or os.fstat(fd).st_size != shard.size:
                raise proof_failed(f"{shard.file} does not begin as planned, or has another size.")
            for output, offset in zip(shard.outputs, shard.offsets, strict=False):
                if output.untouched:
                    self._compare_bytes(output, fd, offset, found)
                else:
                    with self._computing:
                        _check_rows(output, fd, offset, reader, found)
        finally:
            os.close(fd)
        self._found[shard.file] = found

    def _facts(self) -> dict[str, Any]:
        replaced = [
            output.name
            for shard in self.plan.shards
            for output in shard.outputs
            if output.adapter is not None and not output.merged
        ]
        shards = [self._found[shard.file] for shard in self.plan.shards]
        values = sum(shard.values for shard in shards)
        return {
            "sampled_rows": sum(shard.rows for shard in shards),
            "max_ulp": round(max(shard.max_ulp for shard in shards), 4),
            "correctly_rounded": sum(shard.nearest for shard in shards) / (values or 1),
            "sampled_values": values,
            "sampled_values_changed": sum(shard.changed for shard in shards),
            "all_finite": True,
            "untouched_identical": sum(shard.untouched for shard in shards),
            "untouched_bytes": sum(shard.untouched_bytes for shard in shards),
            "converted": sorted(name for shard in shards for name in shard.converted),
            "replaced": sorted(replaced),
        }

    def _compare_bytes(self, output: Output, fd: int, offset: int, found: ShardProof) -> None:
        source, done = self.sources.of(output), 0
        while done < output.nbytes:
            size = min(_BLOCK, output.nbytes - done)
            ours = os.pread(fd, size, offset + done)
            if not ours or ours != os.pread(source, len(ours), output.source.offset + done):
                raise proof_failed(f"{output.name} is untouched by the adapter and differs.")
            done += len(ours)
        found.untouched += 1
        found.untouched_bytes += output.nbytes


def _check_rows(output: Output, fd: int, offset: int, reader: _Reader, found: ShardProof) -> None:
    import torch

    numbers = _some_rows(output)
    if not numbers:
        return
    base = torch.stack([_row(reader.sources.of(output), output.source, n) for n in numbers])
    written = torch.stack([_written_row(fd, output, offset, n) for n in numbers])
    found.rows += len(numbers)
    if not output.merged:
        if not torch.equal(written, base.to(written.dtype)):
            raise proof_failed(f"{output.name} is not what it should have been copied from.")
        if output.adapter is None:
            found.converted.append(output.name)
        return
    value, magnitude = _expected(output, numbers, base.double(), reader)
    error = (written.double() - value).abs()
    # Half a unit for the one rounding, and float32 arithmetic, whose error is relative to the terms
    # and not to their sum, which may be near zero.
    allowed = 0.5001 * _ulp(value, written.dtype) + 16 * torch.finfo(torch.float32).eps * magnitude
    worst = float((error / _ulp(magnitude, written.dtype)).max())
    if not bool((error <= allowed).all()):
        raise proof_failed(
            f"{output.name} is off by {worst:.1f} units in the last place of its terms."
        )
    found.values += written.numel()
    found.max_ulp = max(found.max_ulp, worst)
    found.nearest += int((written == value.to(written.dtype)).sum())
    found.changed += int((written != base.to(written.dtype)).sum())


def _expected(
    output: Output, numbers: list[int], base: torch.Tensor, reader: _Reader
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows ``numbers`` in float64, and the size of the terms they are a sum of."""
    import torch

    factors = reader.factors
    value, magnitude = base.clone(), base.abs()
    for product in output.products:
        inside = [i for i, n in enumerate(numbers) if product.start <= n < product.stop]
        if not inside:
            continue
        picked = [numbers[i] - product.start for i in inside]
        left = factors.matrix(product.left, left=True)[picked].double() * product.scale
        right = factors.matrix(product.right, left=False).double()
        value[inside] += left @ right
        magnitude[inside] += left.abs() @ right.abs()
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
            factor = reader.arithmetic.column_factors(output).double()
        value, magnitude = value * factor, magnitude * factor.abs()
    if output.rows is not None:
        rows = factors.vector(output.rows.adapter, output.rows.tensor).double()
        for position, number in enumerate(numbers):
            if number in output.rows.indices:
                value[position] = rows[output.rows.indices.index(number)]
                magnitude[position] = value[position].abs()
    return value, magnitude


def _some_rows(output: Output) -> list[int]:
    """Rows to compute again: the same for the same tensor, and some that the adapter changes."""
    import torch

    seed = int.from_bytes(hashlib.sha256(output.name.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(output.source.rows, (SAMPLED_ROWS,), generator=generator).tolist()
    if output.source.rows:
        # The ends of a tensor, and of the blocks it is computed in, are where a mistake shows first.
        rows += [0, output.source.rows - 1]
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
