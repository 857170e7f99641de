"""What a run found out of its server, as figures beside what had been predicted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from quantui.domain.events import Measured
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantui.domain.memory import MemoryEstimate


_ONE_FLUSH_S = 0.01
"""Tokens that come within so many seconds came in one piece: the time between them says nothing of decoding."""


def measured(
    estimate: MemoryEstimate,
    figures: Mapping[str, float],
    result: Mapping[str, Any],
    *,
    tree_bytes: int = 0,
) -> Iterator[Measured]:
    """Each figure that is known: ``figures`` from vLLM's log, ``result`` of the check.

    ``tree_bytes`` is the RAM of a server on the CPU; 0: not measured, or not what the estimate is of.
    """
    at, answer = time.time(), result["answer"]
    if "weight_memory" in figures:
        yield Measured(
            at=at,
            name="weights",
            value=figures["weight_memory"] * GIB,
            unit="bytes",
            source="vLLM's log",
            predicted=float(estimate.weight_bytes),
        )
    tokens = result.get("kv_cache_tokens") or figures.get("kv_cache_tokens")
    if tokens:
        yield Measured(
            at=at,
            name="KV cache",
            value=float(tokens),
            unit="tokens",
            source="vLLM's /metrics",
            predicted=float(estimate.kv_cache_tokens),
        )
    if tree_bytes:
        yield Measured(
            at=at,
            name="RAM of vLLM",
            value=float(tree_bytes),
            unit="bytes",
            source="resident minus shared, /proc",
            predicted=float(estimate.total_bytes),
        )
    if answer.get("first_token_seconds") is not None:
        yield Measured(
            at=at,
            name="first token",
            value=answer["first_token_seconds"],
            unit="s",
            source="one streamed request",
        )
        after = answer["seconds"] - answer["first_token_seconds"]
        if answer["tokens"] > 1 and after >= _ONE_FLUSH_S:
            yield Measured(
                at=at,
                name="decoding",
                value=(answer["tokens"] - 1) / after,
                unit="tokens/s",
                source="one streamed request",
            )
    if "perplexity" in result:
        yield Measured(
            at=at,
            name="perplexity",
            value=result["perplexity"]["perplexity"],
            unit="",
            source=f"{result['perplexity']['tokens']} tokens of check.text, served",
        )
