"""What must hold of an adapter's values before a byte is written: finite, of effect, and itself consistent."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from streaming_merge.refusals import keys_unmatched, no_effect, not_finite
from streaming_merge.sources import Factors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from streaming_merge.drafting import SameValues
    from streaming_merge.operations import Output, Plan, Product
    from streaming_merge.sources import Sources


def check_values(plan: Plan, same: Sequence[SameValues], sources: Sources) -> dict[str, float]:
    """Refuse an adapter that is broken or does nothing; give the norm of each tensor's change.

    Frobenius norms by tensor, from the factors alone: the squares of scale x L R sum to the trace of
    (L^T L)(R R^T). What DoRA changes is known only once it is computed, and is absent here; of what is
    replaced whole the norm is that of the new values.

    Raises:
        WorkerError: ``merge.not-finite``, ``merge.no-effect``, ``merge.keys-unmatched``.
    """
    factors = Factors(sources, "cpu")
    norms: dict[str, float] = {}
    finite: set[tuple[int, str]] = set()
    directed = False
    for shard in plan.shards:
        for output in shard.outputs:
            directed = directed or output.direction is not None
            if (norm := _norm(output, factors, sources)) is not None:
                norms[output.name] = norm
                # One value that is not finite makes the norm so.
                finite |= output.uses if math.isfinite(norm) else set()
    _refuse_not_finite(sources, finite)
    for pair in same:
        _check_same(pair, sources)
    if not directed and not any(norms.values()):
        raise no_effect(sources.adapters[0].folder)
    return norms


def _refuse_not_finite(sources: Sources, known: set[tuple[int, str]]) -> None:
    """Look at each value of the adapters but for the tensors of which it is ``known``."""
    for index, adapter in enumerate(sources.adapters):
        broken = [
            name
            for name in adapter.tensors
            if (index, name) not in known
            and not all(bool(b.isfinite().all()) for b in sources.adapter_blocks(index, name))
        ]
        if broken:
            raise not_finite(adapter.folder, broken)


def _check_same(pair: SameValues, sources: Sources) -> None:
    import torch

    if pair.transposed:
        one = sources.adapter_tensor(pair.adapter, pair.one)
        same = torch.equal(one, sources.adapter_tensor(pair.adapter, pair.other).T)
    else:
        # Whole embeddings, which may be larger than anything else that is held in memory.
        shapes = sources.adapters[pair.adapter].tensors
        blocks = (sources.adapter_blocks(pair.adapter, name) for name in (pair.one, pair.other))
        same = shapes[pair.one].shape == shapes[pair.other].shape and all(
            torch.equal(one, other) for one, other in zip(*blocks, strict=True)
        )
    if not same:
        folder = sources.adapters[pair.adapter].folder
        raise keys_unmatched(folder, [f"{pair.other} (differs from {pair.one})"], [])


def _norm(output: Output, factors: Factors, sources: Sources) -> float | None:
    import torch

    if output.direction is not None:
        return None
    if not output.merged:
        if output.adapter is None:
            return None
        squares = (
            float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
            for block in sources.adapter_blocks(output.adapter, output.source.name)
        )
        return float(sum(squares) ** 0.5)
    total = sum(_gram(group, factors) for group in _overlapping(output.products))
    for addition in output.additions:
        vector = sources.adapter_tensor(addition.adapter, addition.tensor)
        total += (
            float(torch.linalg.vector_norm(vector, dtype=torch.float64)) ** 2 * addition.scale**2
        )
    if output.rows is not None:
        rows = sources.adapter_tensor(output.rows.adapter, output.rows.tensor)
        total += float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2
    return float(max(total, 0.0) ** 0.5)


def _overlapping(products: Sequence[Product]) -> Iterator[list[Product]]:
    """Products in groups that share their rows: each adapter adds one to every range."""
    groups: dict[tuple[int, int], list[Product]] = defaultdict(list)
    for product in products:
        groups[product.start, product.stop].append(product)
    yield from groups.values()


def _gram(group: Sequence[Product], factors: Factors) -> float:
    """The square of the norm of the sum of ``group``, in float64."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = [
        (
            factors.matrix(product.left, left=True).double() * product.scale,
            factors.matrix(product.right, left=False).double(),
        )
        for product in group
    ]
    return float(
        sum(
            ((left.T @ other_left) * (right @ other_right.T)).sum()
            for left, right in pairs
            for other_left, other_right in pairs
        )
    )
