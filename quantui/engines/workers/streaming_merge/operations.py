"""What a merge does to each tensor, as values: nothing here reads or computes.

A stored tensor is seen as a matrix, all axes but the last flattened into rows, so that a linear layer,
GPT-2's transposed one, an embedding and a stack of experts are the same thing: rows to which products of
two small matrices are added.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from streaming_merge.checkpoint import ITEM_BYTES, Tensor


@dataclass(frozen=True)
class Factor:
    """One half of a LoRA pair as it is multiplied: part of an adapter's tensor, perhaps transposed.

    ``half`` "A" is stored as (rank, in), "B" as (out, rank). With ``experts`` above one the tensor is a
    stack as PEFT keeps it, A (experts x rank, in) and B (out, rank x experts), and ``expert`` is taken of
    it (PEFT, ``ParamWrapper.get_delta_weight``). ``start`` and ``stop`` cut the axis that is not the rank,
    after the transposition.
    """

    adapter: int
    tensor: str
    half: str
    transposed: bool
    start: int
    stop: int
    expert: int = 0
    experts: int = 1


@dataclass(frozen=True)
class Product:
    """``scale`` x ``left`` @ ``right``, added to the rows from ``start`` to ``stop`` of a tensor."""

    start: int
    stop: int
    left: Factor
    right: Factor
    scale: float


@dataclass(frozen=True)
class Direction:
    """DoRA: what is summed is scaled to ``magnitude`` over its norm, by row or by column.

    By column where a weight is stored (in, out), and for embeddings, whose magnitude PEFT keeps by
    hidden value (``DoraEmbeddingLayer``).
    """

    adapter: int
    magnitude: str
    by_row: bool


@dataclass(frozen=True)
class Addition:
    """``scale`` x the adapter's vector, added (lora_bias)."""

    adapter: int
    tensor: str
    scale: float


@dataclass(frozen=True)
class Rows:
    """Rows that the adapter brings whole (trainable tokens): row i of its tensor is ``indices[i]``."""

    adapter: int
    tensor: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """One tensor of the result. ``source`` is the base's, or the adapter's where it brings its own."""

    name: str
    dtype: str
    source: Tensor
    adapter: int | None = None
    """Which adapter ``source`` belongs to; None: the base."""
    products: tuple[Product, ...] = ()
    direction: Direction | None = None
    additions: tuple[Addition, ...] = ()
    rows: Rows | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As its source's."""
        return self.source.shape

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.source.nbytes // ITEM_BYTES[self.source.dtype] * ITEM_BYTES[self.dtype]

    @property
    def merged(self) -> bool:
        """Whether values are computed for it, not only copied or converted."""
        return bool(self.products or self.additions or self.rows)

    @property
    def uses(self) -> set[tuple[int, str]]:
        """(adapter, its tensor) of everything that goes into this tensor."""
        found = {(f.adapter, f.tensor) for p in self.products for f in (p.left, p.right)}
        found |= {(addition.adapter, addition.tensor) for addition in self.additions}
        if self.adapter is not None:
            found.add((self.adapter, self.source.name))
        if self.direction is not None:
            found.add((self.direction.adapter, self.direction.magnitude))
        if self.rows is not None:
            found.add((self.rows.adapter, self.rows.tensor))
        return found

    @property
    def untouched(self) -> bool:
        """Whether its bytes are the base's."""
        return not self.merged and self.adapter is None and self.dtype == self.source.dtype


@dataclass(frozen=True)
class OutputShard:
    """One file of the result: ``header``, then the tensors in order.

    ``like`` is the base's file that has the same header, so that every byte lies where it lay; None where
    sizes, dtypes or names changed.
    """

    file: str
    header: bytes
    outputs: tuple[Output, ...]
    like: str | None

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor begins in the file, and where the file ends."""
        found = [len(self.header)]
        for output in self.outputs:
            found.append(found[-1] + output.nbytes)
        return tuple(found)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.offsets[-1]


@dataclass(frozen=True)
class Plan:
    """A whole merge. ``config`` are the fields of config.json that change, with their new values."""

    shards: tuple[OutputShard, ...]
    consumed: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Tensors of the base that the result's class does not have."""

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides the result's bytes, for the plan's hash."""
        return {
            "shards": [
                {
                    "file": s.file,
                    "header": s.header.hex(),
                    "outputs": [asdict(o) for o in s.outputs],
                }
                for s in self.shards
            ],
            "config": self.config,
        }
