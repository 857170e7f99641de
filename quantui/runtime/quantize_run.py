"""The quantization of a run: the 16-bit model measured, the checkpoint made on the first device that can, and proven.

The result gets its place when it is proven. One that is wrong is set aside and never reused; one whose proof
something else kept from running stays beside its place, and the same run again goes on with the proof.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import (
    Measured,
    Notice,
    RunEvent,
    StepPhase,
    StepReused,
    StepStarted,
)
from quantui.domain.formatting import format_bytes
from quantui.domain.plan import alone_on
from quantui.domain.producing.verdict import Verdict, judge
from quantui.runtime.artifacts import UNPROVEN, Origin, allocated_bytes
from quantui.runtime.device_cascade import over_devices
from quantui.runtime.making_places import place_of
from quantui.runtime.os_errors import os_error
from quantui.runtime.reference_cache import measured_reference, with_absolute_text
from quantui.runtime.unproven import find_unproven, note_unproven
from quantui.runtime.worker_run import run_worker

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from quantui.domain.plan import QuantizeStep
    from quantui.runtime.artifacts import Artifact, ArtifactStore
    from quantui.runtime.making_places import Place
    from quantui.runtime.reference_cache import Reference
    from quantui.runtime.run_context import RunContext

_WRONG = frozenset({"prove.does-not-load", "prove.not-finite"})
"""Errors of a proof that speak of the result; all others speak of the machine."""


def run_quantize(
    context: RunContext, step: QuantizeStep, store: ArtifactStore
) -> Generator[RunEvent, None, dict[str, Any]]:
    """Quantize, prove and commit; gives the step's result: ``path``, ``reused`` and what ``quantui.json`` holds.

    Raises QuantuiError: the workers' own, ``quantize.failed-proof`` (exit code 6), ``quantize.no-reference``; and
    OSError.
    """
    place = place_of(step, store)
    with place.exclusive(context.cancelled):
        found = None if step.recreate else place.find()
        if found is not None:
            yield StepReused(at=time.time(), step=step.id, artifact=str(found.path))
            refuse_recorded_loss(found, step)
            return {**found.record["made"], "reused": True, "path": str(found.path)}
        yield StepStarted(at=time.time(), step=step.id, detail=step.devices[0])
        began: float | None = time.monotonic()
        reference = yield from measured_reference(context, step)
        produced = None
        if not step.recreate:
            produced = find_unproven(place.staged(), step.artifact.inputs)
        if produced is None:
            produced = yield from over_devices(
                step.id, step.devices, partial(_produce_on, context, step, place, reference)
            )
        else:
            text = f"Made before and not proven yet: {place.staged()}. It goes on with the proof."
            yield Notice(at=time.time(), step=step.id, level="info", text=text)
            began = None
        made = yield from _prove(context, step, place, reference, produced, began)
    yield from _figures(made.record["made"])
    return {**made.record["made"], "reused": False, "path": str(made.path)}


def _produce_on(
    context: RunContext, step: QuantizeStep, place: Place, reference: Reference | None, device: str
) -> Generator[RunEvent, None, dict[str, Any]]:
    """Let the producer write the checkpoint; gives what it told."""
    if device != step.devices[0]:
        yield StepStarted(at=time.time(), step=step.id, detail=device)
    try:
        staged = place.stage(step.bytes)
        name, environment = alone_on(device)
        job = {
            **step.job,
            "out": str(staged),
            "device": name,
            "reference": None if reference is None else str(reference.path),
        }
        produced = yield from run_worker(context, step.id, step.argv, job, env=environment)
        produced.pop("path", None)
        if produced.get("device") != "cpu":
            # The worker knows its GPU as cuda:0; this is NVML's number.
            produced["device"] = device
        note_unproven(staged, step.artifact.inputs, produced)
    except BaseException:
        place.discard()
        raise
    return produced


def _prove(
    context: RunContext,
    step: QuantizeStep,
    place: Place,
    reference: Reference | None,
    produced: dict[str, Any],
    began: float | None,
) -> Generator[RunEvent, None, Artifact]:
    """Load what was made, measure it, and give it its place if it passes.

    ``began``: when the making did, by the monotonic clock; None where an earlier try made it.
    """
    staged = place.staged()
    yield StepPhase(at=time.time(), step=step.id, phase=f"proof in {step.proof_runtime}")
    about = {
        **produced,
        "base": None if reference is None else reference.told,
        "base_bytes": _weight_bytes(Path(step.job["model"])),
        "why_not_vllm": step.why_not_vllm,
    }
    device, environment = alone_on(step.proof_device or str(produced.get("device") or "cpu"))
    job = {
        **with_absolute_text(step.proof.job),
        "model": str(staged),
        "reference": None if reference is None else str(reference.path),
        "device": device,
    }
    try:
        proof = yield from run_worker(
            context,
            step.id,
            step.proof.argv,
            job,
            env=environment,
            name="quantize-proof",
            within="proof",
        )
        verdict = judge(
            _number(proof.get("perplexity")),
            None if reference is None else reference.perplexity,
            finite=proof.get("finite") is not False,
            max_loss=step.max_loss,
        )
        about |= {"proof": proof, "loss": verdict.loss}
        if not verdict.why:
            seconds = None if began is None else time.monotonic() - began
            made = place.commit(staged, about, Origin(step.made_from, seconds))
            (made.path / UNPROVEN).unlink(missing_ok=True)
            return made
    except (QuantuiError, OSError) as caught:
        error = os_error(caught) if isinstance(caught, OSError) else caught
        if error.code == "run.cancelled":
            place.discard()
            raise
        if not _speaks_of_the_result(error):
            raise _unproven(error, staged) from None
        about["proof"] = error.to_dict()
        verdict = Verdict(None, f"{error.what} {error.why}".strip(), error.fix)
        raise _broken(place, step, about, verdict, error.detail) from None
    except BaseException:
        place.discard()
        raise
    raise _broken(place, step, about, verdict)


def _speaks_of_the_result(error: QuantuiError) -> bool:
    """A worker that dies by anything but SIGKILL crashed over what it loaded: the kernel kills for memory alone."""
    return error.code in _WRONG or (
        error.code == "worker.died" and error.exit_code == ExitCode.ENGINE
    )


def _broken(
    place: Place,
    step: QuantizeStep,
    about: dict[str, Any],
    verdict: Verdict,
    detail: tuple[str, ...] = (),
) -> QuantuiError:
    """Set the result aside; gives the error that says why and where it is."""
    moved = place.set_aside({**about, "why": verdict.why, "loss": verdict.loss})
    return QuantuiError(
        "quantize.failed-proof",
        f"What {step.recipe.producer} made ({step.recipe.method}) did not pass its proof in {step.proof_runtime}.",
        verdict.why,
        f"{verdict.fix} It is kept as {moved} ({format_bytes(allocated_bytes(moved))}) for whoever wants "
        "to look, is never used, and goes with the next try or when you delete it.".strip(),
        ExitCode.CHECK_FAILED,
        detail,
    )


def _unproven(error: QuantuiError, staged: Path) -> QuantuiError:
    """``error`` of a proof that could not be carried out, with what becomes of the result."""
    size = format_bytes(allocated_bytes(staged))
    error.fix = (
        f"{error.fix} The checkpoint is made and not proven: it stays in {staged} ({size}), and the same "
        "command goes on with the proof; with --recreate it makes it anew."
    ).strip()
    return error


def refuse_recorded_loss(found: Artifact, step: QuantizeStep) -> None:
    """Raise ``quantize.failed-proof`` when an artifact that was proven lost more than is allowed now."""
    loss = _number(found.record["made"].get("loss"))
    if step.max_loss is None or (loss is not None and loss <= step.max_loss):
        return
    told = "was not measured" if loss is None else f"is {loss:+.2%}"
    raise QuantuiError(
        "quantize.failed-proof",
        f"{found.path} was made before; its loss {told}.",
        f"quantization.max_loss allows {step.max_loss:.2%}.",
        "Take a method with more bits or smaller groups, allow a greater loss, or make it again "
        "(quantization.recreate).",
        ExitCode.CHECK_FAILED,
    )


def _figures(made: dict[str, Any]) -> Iterator[RunEvent]:
    """What the quantization cost and saved, each beside the 16-bit model's."""
    proof, base = made["proof"], made["base"] or {}
    perplexity = _number(proof.get("perplexity"))
    at = time.time()
    if perplexity is not None:
        yield Measured(
            at=at,
            name="perplexity",
            value=perplexity,
            unit="",
            source=f"{proof.get('tokens')} held-out tokens, {proof.get('runtime')}",
            base=_number(base.get("perplexity")),
        )
    if (size := _number(made.get("bytes"))) is not None:
        yield Measured(
            at=at,
            name="size on disk",
            value=size,
            unit="bytes",
            source="all files",
            base=_number(made.get("base_bytes")),
        )


def _weight_bytes(model: Path) -> int | None:
    """Bytes of the 16-bit model's weights; None where they are not safetensors."""
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in model.glob("*.safetensors")) or None
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
