"""What comes closest when nothing fits, and how large a model would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.recommendation import NearestMiss, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

FOUR_BIT_MODEL = 0.56
"""Bytes a parameter of a whole model in 4 bit, its 16-bit embeddings included: Llama-3.1-8B in W4A16 is 5.7 GB for
8.03 billion, 70B 39.8 for 70.6."""


def nearest_miss(refused: Iterable[Refusal]) -> NearestMiss | None:
    """Of what is only short of memory, the one that lacks least; None when memory is not the reason."""
    short = [one for one in refused if one.code == "memory" and one.fit is not None]
    if not short:
        return None
    best = min(short, key=lambda one: one.fit.missing_bytes if one.fit else 0)
    assert best.fit is not None
    change = best.fit.smallest_change
    return NearestMiss(
        best.method,
        best.title,
        best.fit.missing_bytes,
        change.text if change else "",
        best.fit,
        _smaller(best),
    )


def _smaller(best: Refusal) -> tuple[str, ...]:
    """In words: the size of model that these devices hold in 4 bit."""
    result = best.fit
    if result is None or result.budget_bytes is None:
        return ()
    world = best.tensor_parallel * best.pipeline_parallel
    overhead = result.transient.bytes + result.graphs.bytes + result.context.bytes
    room = (result.budget_bytes - overhead) * world * 0.9
    billions = room / FOUR_BIT_MODEL / 1e9
    if billions < 0.1:
        return ()
    return (
        f"A model of up to about {billions:.0f} billion parameters fits here in 4 bit "
        f"(nine tenths of the room / {FOUR_BIT_MODEL} bytes a parameter)."
        if billions >= 1
        else f"A model of up to about {billions:.1f} billion parameters fits here in 4 bit.",
    )
