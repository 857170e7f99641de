"""The merge of a run: the cascade over devices, and what stays of one that failed."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import QuantuiError
from quantui.domain.events import Notice, RunEvent, StepFailed, StepReused, StepStarted
from quantui.domain.plan import alone_on
from quantui.runtime.artifacts import Origin
from quantui.runtime.device_cascade import NEXT_DEVICE, over_devices
from quantui.runtime.making_places import place_of
from quantui.runtime.os_errors import os_error
from quantui.runtime.unfinished import kept
from quantui.runtime.worker_run import run_worker

if TYPE_CHECKING:
    from collections.abc import Generator

    from quantui.domain.plan import MergeStep
    from quantui.runtime.artifacts import Artifact, ArtifactStore
    from quantui.runtime.making_places import Place
    from quantui.runtime.run_context import RunContext

_GOES_ON = frozenset({"disk.full", "disk.not-enough", "worker.died", "worker.out-of-memory"})
"""Errors after which what was merged so far is kept: nothing is wrong with it, and the next try goes on."""


def run_merge(
    context: RunContext, step: MergeStep, store: ArtifactStore
) -> Generator[RunEvent, None, dict[str, Any]]:
    """Merge on the first device that can; gives the step's result.

    The result holds ``path`` and ``reused``, or ``unmerged`` when no device could and the step allows
    to serve the adapter beside its base. Raises QuantuiError or OSError.
    """
    place = place_of(step, store)
    with place.exclusive(context.cancelled):
        found = None if step.recreate else place.find()
        if found is not None:
            yield StepReused(at=time.time(), step=step.id, artifact=str(found.path))
            return {"reused": True, "path": str(found.path), **found.record["made"]}
        try:
            made = yield from over_devices(
                step.id, step.devices, partial(_merge_on, context, step, place)
            )
        except QuantuiError as caught:
            if caught.code not in NEXT_DEVICE or not step.serve_lora_on_failure:
                raise
            error = caught
        else:
            return {"reused": False, **made.record["made"], "path": str(made.path)}
    yield StepFailed(at=time.time(), step=step.id, error=error.to_dict(), final=False)
    text = "No device could merge; vLLM serves the base with the adapter beside it."
    yield Notice(at=time.time(), step=step.id, level="warning", text=text)
    return {"unmerged": True}


def _merge_on(
    context: RunContext, step: MergeStep, place: Place, device: str
) -> Generator[RunEvent, None, Artifact]:
    yield StepStarted(at=time.time(), step=step.id, detail=device)
    try:
        staged = place.stage(step.bytes)
    except QuantuiError as caught:
        left = place.unfinished()
        raise kept(caught, left, step) if left and left.goes_on else caught from None
    name, environment = alone_on(device)
    began = time.monotonic()
    job = {**step.job, "out": str(staged), "device": name}
    try:
        result = yield from run_worker(context, step.id, step.argv, job, env=environment)
        result.pop("path", None)
        # The worker may have ended on the CPU; its cuda:0 is the device of NVML's number that it was given.
        if result.get("device") != "cpu":
            result["device"] = device
        # What an earlier try had merged is not in the time of this one.
        seconds = None if result.get("resumed_shards") else time.monotonic() - began
        return place.commit(staged, result, Origin(step.made_from, seconds))
    except (QuantuiError, OSError) as caught:
        error = os_error(caught) if isinstance(caught, OSError) else caught
        left = place.unfinished()
        if error.code in _GOES_ON and left is not None and left.goes_on:
            raise kept(error, left, step) from None
        place.discard()
        raise error from None
    except BaseException:
        place.discard()
        raise
