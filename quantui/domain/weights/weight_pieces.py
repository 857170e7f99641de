"""Tensors that hold rows of different kinds: taken apart, because tensor parallel divides the kinds differently."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quantui.domain.weights.weight_groups import WeightGroup

_FUSED = frozenset(
    {"qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack", "attention_qkv"}
)
_QKV = ("q_proj", "k_proj", "v_proj")


def in_pieces(
    groups: Sequence[WeightGroup], known: Iterable[WeightGroup]
) -> tuple[WeightGroup, ...]:
    """``groups`` of headers, with fused ones taken apart as the config's groups, ``known``, are.

    Fused are queries with keys and values, and the heads and groups of a Mamba 2 mixer. What does not add up to
    the rows of the tensor stays whole.
    """
    by_name: dict[str, list[WeightGroup]] = defaultdict(list)
    for group in known:
        by_name[_ending(group.name)].append(group)
    made: list[WeightGroup] = []
    for group in groups:
        made += _apart(group, by_name) if group.split == "column" else [group]
    return tuple(made)


def _apart(group: WeightGroup, by_name: dict[str, list[WeightGroup]]) -> list[WeightGroup]:
    same = by_name.get(_ending(group.name), [])
    if group.name.rsplit(".", 1)[-1] in _FUSED:
        runs = zip(*(by_name.get(f"self_attn.{name}", ()) for name in _QKV), strict=False)
        same = next((list(run) for run in runs if _adds_up(group, run)), [])
    else:
        same = [piece for piece in same if piece.role == group.role]
    if len(same) < 2 or not _adds_up(group, same):
        return [group]
    return [_piece(group, piece) for piece in same]


def _adds_up(group: WeightGroup, pieces: Iterable[WeightGroup]) -> bool:
    """Whether the pieces' rows are the group's, and their columns the same where both have more than one."""
    found = list(pieces)
    if group.role not in {"bias", "convolution"} and any(
        piece.columns != group.columns for piece in found
    ):
        return False
    return sum(piece.rows for piece in found) == group.rows


def _piece(group: WeightGroup, piece: WeightGroup) -> WeightGroup:
    """The part of ``group`` that ``piece`` names, by its share of the rows."""
    stored = None
    if group.stored_bytes is not None:
        stored = group.stored_bytes * piece.rows // group.rows
    return replace(
        group,
        rows=piece.rows,
        elements=group.elements * piece.rows // group.rows,
        split=piece.split,
        heads=piece.heads,
        stored_bytes=stored,
    )


def _ending(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[-2:])
