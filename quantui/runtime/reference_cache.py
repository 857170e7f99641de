"""What the 16-bit model says, measured once: for the producer to be compared with, and for the proof.

Kept in the cache folder under the content of the model and of the text; deleting it costs one measurement.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import Notice, RunEvent, StepPhase
from quantui.domain.plan import alone_on
from quantui.runtime.artifacts import exclusive, write_whole
from quantui.runtime.device_cascade import NEXT_DEVICE, over_devices
from quantui.runtime.file_hashes import sha256_of
from quantui.runtime.paths import cache_dir
from quantui.runtime.worker_run import run_worker

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from quantui.domain.plan import QuantizeStep, WorkerCall
    from quantui.runtime.run_context import RunContext

MEASURED_BY = "measure_model/1"
"""Changes when the same model and text would give another file: older ones are then not read."""

_KEPT = 32
"""Files that are kept: of a vocabulary of 150,000 each takes some tens of MiB."""

_OF_THE_MODEL = frozenset({"base", "adapter", "dtype", "tokenizer"})
"""The inputs of an artifact's key that say which 16-bit model it is made from; of its merge those that follow it."""


@dataclass(frozen=True)
class Reference:
    """A measurement of the 16-bit model: the file for other workers, and what was told of it."""

    path: Path
    told: dict[str, Any]

    @property
    def perplexity(self) -> float | None:
        """On the held-out text."""
        value = self.told.get("perplexity")
        return float(value) if isinstance(value, int | float) else None


def measured_reference(
    context: RunContext, step: QuantizeStep
) -> Generator[RunEvent, None, Reference | None]:
    """The reference of the step's model, from the cache or measured now; None where it cannot be held here.

    Another run that measures the same is waited for. Raises ``quantize.no-reference`` (exit code 3) when there is
    none and ``max_loss`` needs one, and what the worker raises for another reason than memory.
    """
    call, reference = step.reference, None
    if call is not None:
        path = cache_dir() / "references" / f"{_digest(step, call)}.safetensors"
        yield StepPhase(at=time.time(), step=step.id, phase="reference")
        with exclusive(path.with_suffix(".lock"), context.cancelled):
            reference = _read(path)
            if reference is None:
                reference = yield from _measure(context, step, call, path)
    if reference is None and step.max_loss is not None:
        raise QuantuiError(
            "quantize.no-reference",
            "quantization.max_loss cannot be checked here.",
            "The 16-bit model could not be measured, and the loss is against its perplexity.",
            "Leave max_loss out, or run where the 16-bit model fits into memory.",
            exit_code=ExitCode.DOES_NOT_FIT,
        )
    return reference


def _measure(
    context: RunContext, step: QuantizeStep, call: WorkerCall, path: Path
) -> Generator[RunEvent, None, Reference | None]:
    partial_file = path.with_suffix(".partial")
    partial_file.unlink(missing_ok=True)
    try:
        told = yield from over_devices(
            step.id, step.devices, partial(_measure_on, context, step.id, call, partial_file)
        )
        write_whole(path.with_suffix(".json"), told)
        partial_file.replace(path)
    except QuantuiError as error:
        if error.code not in NEXT_DEVICE:
            raise
        text = (
            f"The 16-bit model could not be measured here: {error.what} {error.why} The result is proven "
            "without it: what quantizing cost is not known."
        )
        yield Notice(at=time.time(), step=step.id, level="warning", text=text)
        return None
    finally:
        partial_file.unlink(missing_ok=True)
    _forget_old(path.parent)
    return Reference(path, told)


def _measure_on(
    context: RunContext, step: str, call: WorkerCall, out: Path, device: str
) -> Generator[RunEvent, None, dict[str, Any]]:
    name, environment = alone_on(device)
    job = {**with_absolute_text(call.job), "out": str(out), "device": name}
    worker = run_worker(
        context,
        step,
        call.argv,
        job,
        env=environment,
        name="quantize-reference",
        within="reference",
    )
    return (yield from worker)


def with_absolute_text(job: Mapping[str, Any]) -> dict[str, Any]:
    """``job`` with a ``text`` that is found from a worker's folder too."""
    text = job.get("text")
    return {**job, "text": None if text is None else absolute(text)}


def absolute(path: str) -> str:
    """The path from the root, ``~`` resolved."""
    return str(Path(path).expanduser().absolute())


def _digest(step: QuantizeStep, call: WorkerCall) -> str:
    text = call.job.get("text")
    key = {
        "model": {
            name: value
            for name, value in step.artifact.inputs.items()
            if name in _OF_THE_MODEL or name.startswith("merge ")
        },
        "text": None if text is None else sha256_of(Path(absolute(text))),
        "tokens": call.job.get("tokens"),
        "worker": MEASURED_BY,
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> Reference | None:
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        os.utime(path)
    except (OSError, ValueError):
        return None
    return Reference(path, told) if isinstance(told, dict) else None


def _forget_old(folder: Path) -> None:
    """Remove all but the last used; a run that has one open keeps it."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in files[:-_KEPT]:
            file.unlink(missing_ok=True)
            file.with_suffix(".json").unlink(missing_ok=True)
