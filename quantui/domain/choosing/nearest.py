"""What comes closest when nothing fits, and how large a model would."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quantui.domain.choosing.recommendation import NearestMiss, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

FOUR_BIT_MODEL = 0.56
"""Bytes a parameter of a whole model in 4 bit, its 16-bit embeddings included: Llama-3.1-8B in W4A16 is 5.7 GB for
8.03 billion, 70B 39.8 for 70.6."""

WEIGHTS_SHARE = 0.9
"""Of the room, for the weights; the rest is for a cache of a few thousand tokens."""


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
    """In words: how many such cards it would take, and the size of model that these hold in 4 bit."""
    result = best.fit
    if result is None or result.budget_bytes is None:
        return ()
    world = best.tensor_parallel * best.pipeline_parallel
    overhead = result.transient.bytes + result.graphs.bytes + result.context.bytes
    each = result.budget_bytes - overhead
    told = []
    if each > 0 and best.gpus and result.missing_bytes:
        more = math.ceil((each * world + result.missing_bytes) / each)
        told.append(f"{best.title} would take about {more} GPUs like these in all.")
    billions = each * world * WEIGHTS_SHARE / FOUR_BIT_MODEL / 1e9
    if billions >= 0.1:
        told.append(
            f"A model of up to about {billions:.{0 if billions >= 10 else 1}f} billion parameters fits here in 4 bit "
            f"(nine tenths of the room / {FOUR_BIT_MODEL} bytes a parameter)."
        )
    return tuple(told)
