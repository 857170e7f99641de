"""What a run found out about its load, kept for the next estimate: see :mod:`quantui.runtime.observations`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from quantui.domain.fitting.calibration import Figures, Observation
from quantui.domain.units import GIB
from quantui.runtime.observations import append_observation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.fitting.calibration import Expectation, Outcome
    from quantui.runtime.run_context import RunContext

OUT_OF_MEMORY = frozenset({"serve.out-of-memory", "serve.no-room-for-kv-cache"})
"""Failures that say of the estimate that it was too low (codes of data/failures.toml)."""
_LEAST_TOKENS = 8
"""An answer of fewer tokens is over before its speed can be told from the start's delay."""


def keep_load(
    expected: Expectation,
    context: RunContext,
    figures: Mapping[str, float],
    outcome: Outcome,
    *,
    load_seconds: float | None = None,
    checked: Mapping[str, Any] | None = None,
) -> Observation:
    """Append what was seen of a load to the observations; gives it.

    ``figures`` are those of vLLM's log, ``checked`` the result of the check, if there was one.
    """
    checked = checked or {}
    tokens = checked.get("kv_cache_tokens") or figures.get("kv_cache_tokens")
    answer = checked.get("answer") or {}
    first, speed = _speed(answer)
    seen = Observation(
        at=time.time(),
        expected=expected,
        outcome=outcome,
        measured=Figures(
            weights=_bytes(figures, "weight_memory"),
            kv_cache=_bytes(figures, "kv_cache_memory"),
            rest=None,
            kv_tokens=None if tokens is None else int(tokens),
            peak=_held(expected, context),
            graphs=_bytes(figures, "graph_memory"),
        ),
        load_seconds=load_seconds,
        tokens_per_s=speed,
        first_token_s=first,
        answer_tokens=answer.get("tokens"),
    )
    append_observation(seen)
    return seen


def _bytes(figures: Mapping[str, float], name: str) -> int | None:
    return None if name not in figures else int(figures[name] * GIB)


def _held(expected: Expectation, context: RunContext) -> int | None:
    """What one rank held: RAM of the server's processes, or the growth of the fullest of its GPUs."""
    if expected.on_cpu:
        ranks = expected.load.tensor_parallel * expected.load.pipeline_parallel
        return context.server_tree_bytes // ranks or None
    grown = context.gpu_growth()
    return max((grown[index] for index in expected.gpus if index in grown), default=None)


def _speed(answer: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(seconds to the first token, tokens a second after it) of the streamed answer."""
    first, seconds, tokens = (
        answer.get(key) for key in ("first_token_seconds", "seconds", "tokens")
    )
    if first is None or seconds is None or not tokens:
        return None, None
    if tokens < _LEAST_TOKENS or seconds <= first:
        return first, None
    return first, (tokens - 1) / (seconds - first)
