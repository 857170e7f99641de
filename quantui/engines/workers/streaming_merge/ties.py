"""Heads and embeddings: tied, parted by an adapter, or of a vocabulary that it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui_wire import WorkerError

from streaming_merge.copies import same_values
from streaming_merge.drafting import SameValues
from streaming_merge.effects import Effect, stored_name

if TYPE_CHECKING:
    from streaming_merge.adapter_files import AdapterFile
    from streaming_merge.checkpoint import Checkpoint
    from streaming_merge.drafting import Draft
    from streaming_merge.placement import Places


def settle_ties(
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
    if both_stored and not same_values(base.folder, stored[embedding], base.folder, stored[head]):
        # transformers ties only equal ones: these two are apart already, and the config says so now.
        draft.config["tie_word_embeddings"] = False
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
    if not adapter.config.get("ensure_weight_tying") and not same_values(
        adapter.folder, ours.source, adapter.folder, theirs.source
    ):
        return False
    draft.same.append(SameValues(index, ours.source.name, theirs.source.name))
    return True


def settle_vocabulary(draft: Draft, base: Checkpoint) -> None:
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
