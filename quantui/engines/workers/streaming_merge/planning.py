"""The plan of a merge: for each file of the result, each tensor and what is done to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

from streaming_merge.adapter_files import parts_of
from streaming_merge.checkpoint import MERGEABLE, header_bytes
from streaming_merge.effects import Effect, combine, effects_of, stored_name
from streaming_merge.fitting import check_fits
from streaming_merge.operations import Output, OutputShard, Plan
from streaming_merge.placement import UnmappedError
from streaming_merge.refusals import conflict, keys_unmatched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint, Shard, Tensor
    from streaming_merge.placement import Places

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class SameValues:
    """Two tensors of an adapter that must hold the same values; ``transposed``: one's transpose."""

    adapter: int
    one: str
    other: str
    transposed: bool = False


@dataclass
class Draft:
    """What is gathered while a plan is made."""

    effects: dict[str, Effect] = field(default_factory=dict)
    consumed: list[str] = field(default_factory=list)
    same: list[SameValues] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    """A tensor that the base does not store -> the stored one that it is put behind."""


def build_plan(
    base: Checkpoint,
    adapters: Sequence[AdapterFile],
    places: Places,
    *,
    dtype: str | None = None,
) -> tuple[Plan, list[SameValues]]:
    """Everything the merge will write, and what must hold of the adapters' values.

    ``dtype`` (``bfloat16``, ``float16``, ``float32``) is what floating tensors become; None: they stay.

    Raises:
        WorkerError: For whatever does not fit wholly; nothing has been written.
        UnmappedError: Only PEFT can merge it.
    """
    everyone = tuple(adapters)
    draft = Draft()
    for index in range(len(everyone)):
        _add_adapter(draft, index, everyone, places)
    _settle_ties(draft, everyone, places, base)
    _settle_vocabulary(draft, base, places)
    shards = tuple(_output_shard(shard, draft, base, dtype) for shard in base.shards)
    for name, effect in draft.effects.items():
        raise WorkerError(
            "merge.keys-unmatched",
            f"The merge has no place for {name}.",
            f"It would come from adapter {effect.adapter}.",
            "Use the base this adapter was trained on.",
            exit_code=2,
        )
    if dtype is not None:
        draft.config["dtype"] = dtype
    _refuse_unused(draft, everyone, shards)
    plan = Plan(shards, tuple(draft.consumed), draft.config, tuple(draft.notices))
    return plan, draft.same


def _refuse_unused(
    draft: Draft, everyone: tuple[AdapterFile, ...], shards: tuple[OutputShard, ...]
) -> None:
    """Every adapter tensor is used in the result, or must equal one that is: none is left out."""
    used = {
        (index, name) for shard in shards for output in shard.outputs for index, name in output.uses
    }
    used |= {(pair.adapter, name) for pair in draft.same for name in (pair.one, pair.other)}
    for index, adapter in enumerate(everyone):
        copies = {name for name, other in parts_of(adapter).repeated.items() if other is None}
        unused = [n for n in adapter.tensors if (index, n) not in used and n not in copies]
        if unused:
            raise keys_unmatched(adapter.folder, unused, [])


def _add_adapter(
    draft: Draft, index: int, everyone: tuple[AdapterFile, ...], places: Places
) -> None:
    adapter = everyone[index]
    parts = parts_of(adapter)
    check_fits(adapter, parts, places)
    weighted = adapter.weight != 1.0
    whole = bool(parts.whole) or any(
        {"base.weight", "base.bias", "tokens", "magnitude"} & set(found)
        for found in parts.modules.values()
    )
    if weighted and whole:
        raise conflict(
            f"{adapter.folder} has the weight {adapter.weight} and holds more than LoRA",
            "DoRA, saved modules and trained tokens are not sums that a weight could scale.",
        )
    for key, other in parts.repeated.items():
        if other is not None:
            draft.same.append(SameValues(index, key, other))
    try:
        for name, effect in effects_of(index, adapter, parts, places):
            combine(draft.effects.setdefault(name, Effect()), effect, name, everyone)
    except ValueError as error:
        raise UnmappedError(str(error)) from error
    draft.consumed += adapter.tensors


def _settle_ties(
    draft: Draft, everyone: tuple[AdapterFile, ...], places: Places, base: Checkpoint
) -> None:
    """Give a tied model a head of its own where head and embedding become different.

    What PEFT's unmerged model computes is the measure: its embedding and its head are changed each by
    its own adapter layer, and whichever has none keeps the base's values. Merging into the one tensor
    that both share would give each the other's change (as PEFT 0.21 ``merge_and_unload`` does).
    """
    found = places.description
    if found is None or not found["tied"] or found["output_embedding"] is None:
        return
    stored = base.tensors
    embedding = stored_name(f"{found['input_embedding']}.weight", places)
    head = stored_name(f"{found['output_embedding']}.weight", places)
    if embedding == head:
        head = f"{found['output_embedding']}.weight"
    ours, theirs = draft.effects.get(embedding), draft.effects.get(head)
    if ours is None and theirs is None:
        return
    both_stored = head in stored and embedding in stored
    if both_stored and not _same_bytes(base.folder, stored[embedding], stored[head]):
        # transformers ties only equal ones: these two are apart already.
        return
    alike = theirs is None and ours is not None and _only_rows(ours)
    if ours is not None and theirs is not None:
        alike = _is_tied_pair(draft, ours, theirs, everyone)
    if alike:
        # What PEFT does to the embedding it does to the head that is tied to it.
        draft.effects.pop(head, None)
        if both_stored and ours is not None:
            draft.effects[head] = ours
        return
    if not both_stored:
        draft.added[head] = embedding
        head_effect = draft.effects.setdefault(head, Effect())
        if head_effect.source is None:
            head_effect.source, head_effect.adapter = stored[embedding], None
            if ours is not None and ours.source is not None and ours.products:
                # The adapter's copy of the base, which PEFT puts into the tensor that both share.
                head_effect.source, head_effect.adapter = ours.source, ours.adapter
    draft.config["tie_word_embeddings"] = False
    draft.notices.append(
        "The adapter parts the output head from the embedding: the head is stored on its own."
    )


def _only_rows(effect: Effect) -> bool:
    return effect.rows is not None and not effect.products and effect.source is None


def _is_tied_pair(
    draft: Draft, ours: Effect, theirs: Effect, everyone: tuple[AdapterFile, ...]
) -> bool:
    """Whether both get the same values; what that rests on is noted to be checked."""
    index = ours.adapter if ours.adapter is not None else None
    if ours.products and theirs.products:
        (one,), (other,) = ours.products[:1], theirs.products[:1]
        index = one.left.adapter
        if len(ours.products) != 1 or len(theirs.products) != 1 or index != other.left.adapter:
            return False
        if not everyone[index].config.get("ensure_weight_tying") or one.scale != other.scale:
            return False
        draft.same.append(SameValues(index, one.left.tensor, other.left.tensor, transposed=True))
        draft.same.append(SameValues(index, one.right.tensor, other.right.tensor, transposed=True))
        if ours.source is not None and theirs.source is not None:
            draft.same.append(SameValues(index, ours.source.name, theirs.source.name))
        return True
    if ours.products or theirs.products or ours.rows or theirs.rows:
        return False
    if ours.source is None or theirs.source is None or ours.adapter != theirs.adapter:
        return False
    assert index is not None
    adapter = everyone[index]
    if not adapter.config.get("ensure_weight_tying") and not _same_bytes(
        adapter.folder, ours.source, theirs.source
    ):
        return False
    draft.same.append(SameValues(index, ours.source.name, theirs.source.name))
    return True


def _same_bytes(folder: Path, one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    block = 1 << 20
    with (folder / one.file).open("rb") as first, (folder / other.file).open("rb") as second:
        first.seek(one.offset)
        second.seek(other.offset)
        left = one.nbytes
        while left > 0:
            size = min(block, left)
            if first.read(size) != second.read(size):
                return False
            left -= size
    return True


def _settle_vocabulary(draft: Draft, base: Checkpoint, places: Places) -> None:
    """Note a vocabulary that the adapter has changed; head and embedding must agree on it."""
    sizes: dict[int, list[str]] = {}
    stored = base.tensors
    for name, effect in draft.effects.items():
        before = stored.get(name)
        if effect.source is None or before is None or effect.source.shape == before.shape:
            continue
        sizes.setdefault(effect.source.shape[0], []).append(name)
    if not sizes:
        return
    (size, names), *others = sizes.items()
    old = stored[names[0]].shape[0]
    head = "lm_head.weight"
    left_behind = [
        name
        for name in {
            head,
            *(n for n in stored if n.endswith((".embed_tokens.weight", ".wte.weight"))),
        }
        if name in stored and stored[name].shape[0] == old and name not in names
    ]
    if others or left_behind:
        raise WorkerError(
            "merge.shape-mismatch",
            "The adapter resizes the vocabulary in one place and not in the other.",
            f"{names[0]} has {size} rows, and "
            f"{(left_behind or others[0][1])[0]} {old if left_behind else others[0][0]}.",
            "Save head and embedding both with the adapter (modules_to_save), or neither.",
            exit_code=2,
        )
    draft.config["vocab_size"] = size
    draft.notices.append(f"The adapter has {size} tokens and the base {old}: resized.")


def _output_shard(shard: Shard, draft: Draft, base: Checkpoint, dtype: str | None) -> OutputShard:
    outputs: list[Output] = []
    for tensor in shard.tensors:
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
