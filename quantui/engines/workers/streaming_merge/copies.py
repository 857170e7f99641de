"""Tensors that an adapter carries beside its own: copies of the base's, which PEFT saves with embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streaming_merge.checkpoint import ITEM_BYTES
from streaming_merge.effects import stored_name

if TYPE_CHECKING:
    from pathlib import Path

    from streaming_merge.adapter_files import AdapterFile, Parts
    from streaming_merge.checkpoint import Checkpoint, Tensor
    from streaming_merge.placement import Places

_BLOCK = 1 << 18
"""Elements compared at once."""


def without_copies(
    adapter: AdapterFile, parts: Parts, places: Places, base: Checkpoint
) -> tuple[Parts, set[str]]:
    """``parts`` without the copies of what the base has, and the names of these.

    PEFT saves the base's own tensor beside every LoRA on an embedding or head
    (``get_peft_model_state_dict``, ``save_embedding_layers``). Where the values are the base's, the
    pair alone is a LoRA like any other, and can have a weight or stand beside a second one.
    """
    stored, copies = base.tensors, set()
    modules = {}
    for module, found in parts.modules.items():
        kept = dict(found)
        if (key := found.get("base.weight")) is not None:
            plain = module.replace(".base_layer", "")
            own = stored.get(stored_name(f"{places.module(plain) or plain}.weight", places))
            if own is None and (pieces := places.parameter(f"{plain}.weight")):
                # A tied head is stored as the embedding.
                own = stored.get(pieces[0].tensor.name) or _same_place(pieces[0].tensor, base)
            copy = adapter.tensors[key]
            if own is not None and same_values(adapter.folder, copy, base.folder, own):
                copies.add(kept.pop("base.weight"))
        modules[module] = kept
    return replace(parts, modules=modules), copies


def _same_place(tensor: Tensor, base: Checkpoint) -> Tensor | None:
    for stored in base.tensors.values():
        if (stored.file, stored.offset) == (tensor.file, tensor.offset):
            return stored
    return None


def same_values(folder: Path, one: Tensor, other_folder: Path, other: Tensor) -> bool:
    """Whether two stored tensors hold the same values, bit by bit; bfloat16 also against float32."""
    if one.shape != other.shape:
        return False
    if {one.dtype, other.dtype} not in ({one.dtype}, {"F32", "BF16"}):
        return False
    count = one.rows * one.columns
    with (
        (folder / one.file).open("rb") as first,
        (other_folder / other.file).open("rb") as second,
    ):
        first.seek(one.offset)
        second.seek(other.offset)
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            ours = first.read(size * ITEM_BYTES[one.dtype])
            theirs = second.read(size * ITEM_BYTES[other.dtype])
            if one.dtype != other.dtype:
                ours, theirs = _widened(ours, one.dtype), _widened(theirs, other.dtype)
            if ours != theirs:
                return False
    return True


def _widened(values: bytes, dtype: str) -> bytes:
    """bfloat16 as the float32 whose upper half it is."""
    if dtype == "F32":
        return values
    wide = bytearray(2 * len(values))
    wide[2::4], wide[3::4] = values[0::2], values[1::2]
    return bytes(wide)
