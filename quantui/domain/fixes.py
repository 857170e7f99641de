"""What helps after a failed run, as changes that a key can make. Pure.

The codes are those of data/failures.toml (vLLM's own) and those that the steps raise. A code that is not in the
table gets what its family (the word before the dot) has, and in any case another try where that may help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain import making_fixes as making
from quantui.domain import serving_fixes as serving
from quantui.domain.errors import ExitCode
from quantui.domain.fix_case import Case, Fix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quantui.domain.choosing.recommendation import Choice
    from quantui.domain.draft import Draft
    from quantui.domain.errors import QuantuiError
    from quantui.domain.plan import Plan
    from quantui.domain.run_state import RunState

__all__ = ["MOST", "Fix", "fixes_for"]

MOST = 9
"""Fixes are keys: 1 to 9."""


_BY_CODE: dict[str, tuple[Callable[[Case], Iterator[Fix]], ...]] = {
    "serve.memory-at-start": (
        serving.smaller_share,
        serving.shorter_context,
        making.smaller_method,
    ),
    "serve.no-room-for-kv-cache": (
        serving.shorter_context,
        serving.computed_cache,
        serving.larger_share,
        serving.no_graphs,
        making.smaller_method,
    ),
    "serve.out-of-memory": (
        serving.shorter_context,
        serving.fewer_requests,
        serving.smaller_share,
        serving.no_graphs,
        making.smaller_method,
    ),
    "serve.context-too-long": (serving.context_of_model,),
    "serve.unsupported-architecture": (serving.own_engine,),
    "serve.unsupported-method": (making.other_method, serving.own_engine),
    "serve.tensor-parallel": (serving.fewer_gpus,),
    "serve.port-in-use": (serving.free_port,),
    "serve.port-forbidden": (serving.free_port,),
    "serve.bad-host": (serving.own_address,),
    "serve.no-api-key": (serving.without_key,),
    "serve.remote-code": (serving.remote_code,),
    "serve.no-kernel": (making.other_method, serving.eager),
    "serve.missing-shared-library": (serving.own_engine,),
    "serve.disk-full": (making.look_at_caches, making.free_merged),
    "serve.bad-checkpoint": (making.make_again, making.other_method),
    "serve.bad-argument": (serving.without_arguments,),
    "serve.timeout": (serving.more_time, serving.eager),
    "serve.failed": (serving.eager, making.other_method),
    "memory.context-too-long": (serving.context_of_model,),
    "memory.not-free": (serving.smaller_share, making.smaller_method),
    "merge.no-gpu": (making.merge_on_cpu, making.serve_unmerged),
    "merge.not-enough-memory": (making.merge_on_cpu, making.serve_unmerged),
    "quantize.failed-proof": (making.more_calibration, making.any_loss, making.other_method),
    "quantize.not-enough-disk": (
        making.look_at_caches,
        making.free_merged,
        making.other_method,
    ),
    "check.perplexity": (making.other_method, making.more_calibration, making.no_limit),
    "check.wrong-model": (serving.free_port,),
    "check.empty-answer": (making.longer_answer, making.other_method),
    "check.bad-text": (making.no_text,),
    "check.no-text": (making.no_text,),
    "check.text-too-short": (making.no_text,),
}
_BY_FAMILY: dict[str, tuple[Callable[[Case], Iterator[Fix]], ...]] = {
    "memory": (serving.shorter_context, serving.computed_cache, making.smaller_method),
    "disk": (making.look_at_caches, making.free_merged, making.smaller_method),
    "merge": (making.serve_unmerged,),
    "quantize": (making.other_producer, making.other_method),
    "method": (making.other_method,),
    "engine": (serving.own_engine,),
    "check": (making.other_method,),
}
_OUT_OF_MEMORY: dict[str, tuple[Callable[[Case], Iterator[Fix]], ...]] = {
    "merge": (making.merge_on_cpu, making.serve_unmerged),
    "quantize": (making.quantize_on_cpu, making.less_calibration, making.other_method),
    "serve": (serving.shorter_context, serving.fewer_requests, making.smaller_method),
}
"""By the step, for a worker that had no memory left, or that somebody (the kernel, most likely) killed."""
_NO_MEMORY = {
    "worker.out-of-memory",
    "worker.died",
    "quantize.not-enough-memory",
    "quantize.no-gpu",
}

_AGAIN = {
    "serve.memory-at-start": "try again: when other programs have freed memory",
    "serve.port-in-use": "try again: when the other program has let the port go",
    "serve.disk-full": "try again: when there is room on the disk",
    "serve.missing-shared-library": "try again: when the library is installed",
    "serve.unsupported-architecture": "try again: with an engine that was brought up to date",
    "serve.no-api-key": "try again",
    "run.host-died": "try again: what was finished is reused",
    "engine.broken": "install the engine again",
    "engine.install-failed": "install the engine again",
    "engine.hash-mismatch": "install the engine again",
    "engine.no-network": "try again: when the network is there",
    "engine.busy": "try again: when the other process is done",
    "engine.in-use": "try again: when the other process is done",
    "merge.in-progress": "try again: when the other process is done",
    "merge.running": "try again: when the other process is done",
}
_AGAIN_BY_FAMILY = {
    "disk": "try again: when there is room on the disk",
    "hub": "try again: downloads go on where they stopped",
    "model": "try again: when the model can be had",
    "adapter": "try again: when the adapter can be had",
}
_NEVER_AGAIN = {
    "serve.context-too-long",
    "serve.tensor-parallel",
    "serve.remote-code",
    "serve.bad-argument",
    "serve.bad-host",
    "serve.unsupported-method",
}
"""What would end in the same way however often it is tried."""


def fixes_for(
    error: QuantuiError,
    draft: Draft,
    plan: Plan | None = None,
    state: RunState | None = None,
    choices: Sequence[Choice] = (),
) -> tuple[Fix, ...]:
    """At most nine fixes, what helps most likely first; the last one is another try where that may help.

    ``plan`` and ``state`` None: nothing was planned, or nothing ran. ``choices`` are the recommendation's, from
    which another method is taken.
    """
    case = Case(error, draft, plan, choices)
    found: list[Fix] = []
    for make in _changes(error, _failed_step(state)):
        found += [fix for fix in make(case) if fix not in found]
    again = _again(error)
    if again is not None:
        found = [*found[: MOST - 1], again]
    return tuple(found[:MOST])


def _changes(error: QuantuiError, step: str) -> tuple[Callable[[Case], Iterator[Fix]], ...]:
    if error.code in _NO_MEMORY:
        kind = "quantize" if error.code.startswith("quantize.") else step
        return _OUT_OF_MEMORY.get(kind, ())
    family = error.code.partition(".")[0]
    return _BY_CODE.get(error.code) or _BY_FAMILY.get(family, ())


def _failed_step(state: RunState | None) -> str:
    """The kind of the step that failed; its id begins with it."""
    failed = [step.id for step in state.steps if step.status == "failed"] if state else []
    return failed[-1].partition("-")[0] if failed else ""


def _again(error: QuantuiError) -> Fix | None:
    family = error.code.partition(".")[0]
    if error.code in _AGAIN:
        return Fix(_AGAIN[error.code])
    if error.code in _NEVER_AGAIN:
        return None
    if family in _AGAIN_BY_FAMILY:
        return Fix(_AGAIN_BY_FAMILY[family])
    if error.exit_code in (ExitCode.BAD_INPUT, ExitCode.DOES_NOT_FIT) and family != "worker":
        return Fix("try again as it is") if error.code in _BY_CODE else None
    return Fix("try again as it is")
