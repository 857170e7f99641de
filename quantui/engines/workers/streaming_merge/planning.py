"""The plan of a merge: for each file of the result, each tensor and what is done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui_wire import WorkerError

from streaming_merge.adapter_files import parts_of
from streaming_merge.copies import without_copies
from streaming_merge.drafting import Draft, SameValues
from streaming_merge.effects import Effect, combine, effects_of
from streaming_merge.fitting import check_fits
from streaming_merge.heads import add_head, is_added_head
from streaming_merge.layout import output_shard
from streaming_merge.operations import OutputShard, Plan
from streaming_merge.placement import UnmappedError
from streaming_merge.refusals import conflict, keys_unmatched
from streaming_merge.ties import settle_ties, settle_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint
    from streaming_merge.placement import Places


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
        _add_adapter(draft, index, everyone, places, base)
    settle_ties(draft, everyone, places, base)
    settle_vocabulary(draft, base)
    files = [output_shard(shard, draft, base, dtype) for shard in base.shards]
    shards = tuple(file for file in files if file is not None)
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
    plan = Plan(
        shards,
        tuple(draft.consumed),
        draft.config,
        tuple(draft.notices),
        tuple(sorted(draft.dropped)),
    )
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
        unused = [n for n in adapter.tensors if (index, n) not in used | draft.copies]
        if unused:
            raise keys_unmatched(adapter.folder, unused, [])


def _add_adapter(
    draft: Draft,
    index: int,
    everyone: tuple[AdapterFile, ...],
    places: Places,
    base: Checkpoint,
) -> None:
    adapter = everyone[index]
    parts = parts_of(adapter)
    heads = [name for name in parts.whole if is_added_head(adapter, name, places, base.config)]
    check_fits(adapter, parts, places, added=heads)
    parts, copies = without_copies(adapter, parts, places, base)
    draft.copies |= {(index, name) for name in copies}
    draft.copies |= {(index, name) for name, other in parts.repeated.items() if other is None}
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
    if heads:
        add_head(draft, adapter, [parts.whole[name] for name in heads], base)
