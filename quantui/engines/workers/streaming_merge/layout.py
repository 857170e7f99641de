"""The files of the result: which tensors they hold, in which order and dtype, and the index."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

from streaming_merge.checkpoint import MERGEABLE, header_bytes
from streaming_merge.effects import Effect
from streaming_merge.operations import Output, OutputShard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streaming_merge.checkpoint import Checkpoint, Shard, Tensor
    from streaming_merge.drafting import Draft
    from streaming_merge.operations import Plan

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def output_shard(
    shard: Shard, draft: Draft, base: Checkpoint, dtype: str | None
) -> OutputShard | None:
    """The file of the result that takes ``shard``'s place; None where nothing of it is left."""
    outputs: list[Output] = []
    for tensor in shard.tensors:
        if tensor.name in draft.dropped:
            continue
        outputs.append(_output(tensor.name, tensor, draft.effects.pop(tensor.name, None), dtype))
        for name, behind in draft.added.items():
            if behind == tensor.name and name in draft.effects:
                outputs.append(_output(name, tensor, draft.effects.pop(name), dtype))
    if shard is base.shards[-1]:
        # A head that the base does not have at all.
        for name in [n for n, e in draft.effects.items() if e.source is not None]:
            source = draft.effects[name].source
            assert source is not None
            like = replace(source, dtype=_common_dtype(base))
            outputs.append(_output(name, like, draft.effects.pop(name), dtype))
    if not outputs:
        return None
    described = [(o.name, o.dtype, o.shape) for o in outputs]
    same = described == [(t.name, t.dtype, t.shape) for t in shard.tensors]
    header = shard.header if same else header_bytes(described, shard.metadata)
    return OutputShard(shard.path.name, header, tuple(outputs), shard.path.name if same else None)


def _output(name: str, stored: Tensor, effect: Effect | None, dtype: str | None) -> Output:
    effect = effect or Effect()
    result = stored.dtype
    if dtype is not None and result in MERGEABLE:
        result = DTYPES[dtype]
    computed = effect.products or effect.additions or effect.rows
    if computed and stored.dtype not in MERGEABLE:
        raise WorkerError(
            "merge.quantized-base",
            f"{name} is stored as {stored.dtype}, and the adapter changes it.",
            "A change is added to 16- or 32-bit weights only.",
            "Merge into the 16-bit base this one was made from, and quantize the result.",
            exit_code=2,
        )
    return Output(
        name,
        result,
        effect.source or stored,
        effect.adapter if effect.source is not None else None,
        tuple(effect.products),
        effect.direction,
        tuple(effect.additions),
        effect.rows,
    )


def _common_dtype(base: Checkpoint) -> str:
    sizes: dict[str, int] = {}
    for tensor in base.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def changed_index(plan: Plan, index: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The index of the result, where the base has one."""
    if index is None:
        return None
    metadata = dict(index.get("metadata") or {})
    outputs = [(shard.file, output) for shard in plan.shards for output in shard.outputs]
    metadata["total_size"] = sum(output.nbytes for _, output in outputs)
    return {
        **index,
        "metadata": metadata,
        "weight_map": {o.name: file for file, o in sorted(outputs, key=lambda item: item[1].name)},
    }
