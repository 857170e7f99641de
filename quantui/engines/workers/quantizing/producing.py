"""The frame of every producer: checks, a folder that is whole or absent, times, memory, versions."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import atomic_folder
import quantui_wire as wire
from streaming_merge import refusals

from quantizing import outcome
from quantizing.job import Job, read_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

ALSO_REPORTED = ("torch", "transformers", "compressed_tensors", "accelerate", "datasets")
"""Packages whose versions are reported where they are installed, whoever produces."""


@dataclass(frozen=True)
class Made:
    """What a producer tells of its work.

    ``call``: the library call in short. ``recipe``: the fields that were carried out otherwise than
    asked. ``tensors``: the census, where safetensors headers do not tell it (ONNX).
    """

    call: str
    calibration: dict[str, Any] | None = None
    reference: dict[str, Any] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] | None = None


class Clock:
    """Seconds that each phase took; a phase entered twice is summed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announce the phase (``load``, ``compare``, ``calibrate``, ``save``) and time the block."""
        wire.phase(name)
        began = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.monotonic() - began
            self.seconds[name] = round(spent, 2)


def produce(
    job: dict[str, Any],
    *,
    needs: tuple[str, ...],
    make: Callable[[Job, Path, Clock], Made],
) -> dict[str, Any]:
    """Check ``job``, let ``make`` write into a folder that becomes the job's ``out``, and report.

    ``needs``: the modules that must be importable. ``make`` gets the job, the folder to write into and
    the clock. Nothing of ``make``'s libraries may be imported before.

    Raises:
        WorkerError: ``quantize.bad-job``, ``quantize.exists``, ``quantize.in-progress``,
            ``engine.lacks-packages``, ``quantize.not-enough-memory``, ``quantize.wrote-nothing`` and
            what ``make`` raises.
        OSError: The disk is full.
    """
    began = time.monotonic()
    asked = read_job(job)
    refuse_existing(asked.out)
    refuse_missing(needs)
    set_environment(asked)
    clock = Clock()
    try:
        with atomic_folder.whole_folder(asked.out) as folder, foreseeable(asked.device):
            made = make(asked, folder, clock)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if not (folder / "config.json").is_file() and not any(folder.glob("*.onnx")):
                raise wrote_nothing(folder)
            tensors = made.tensors or outcome.census(folder)
    except BlockingIOError as error:
        raise refusals.in_progress(asked.out) from error
    return {
        "path": str(asked.out),
        "bytes": size,
        "seconds": round(time.monotonic() - began, 2),
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_gpu_bytes": peak_gpu_bytes(asked.device),
        "device": asked.device,
        "phases": clock.seconds,
        "recipe": {**asked.recipe.to_json(), **made.recipe, "call": made.call},
        "versions": versions((*needs, *ALSO_REPORTED)),
        "calibration": made.calibration,
        "tensors": tensors,
        "reference": made.reference,
    }


def refuse_existing(out: Path) -> None:
    """Raise ``quantize.exists`` when there is something at ``out``."""
    if out.exists():
        raise wire.WorkerError(
            "quantize.exists",
            f"{out} exists already.",
            "A finished checkpoint is never overwritten.",
            "Remove the folder, or choose another.",
            exit_code=2,
        )


def refuse_missing(needs: Sequence[str]) -> None:
    """Raise ``engine.lacks-packages`` when a module of ``needs`` cannot be imported."""
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        raise wire.WorkerError(
            "engine.lacks-packages",
            f"This engine lacks {', '.join(missing)}.",
            "This way of quantizing needs them.",
            f"Install {' '.join(missing)} into the engine, or choose another engine.",
        )


def set_environment(job: Job) -> None:
    """Keep libraries off the network, and torch's idle threads off the other cores."""
    # Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not job.asks_hub:
        os.environ["HF_HUB_OFFLINE"] = "1"


@contextmanager
def foreseeable(device: str) -> Iterator[None]:
    """Turn a library's way of saying "no memory" or "no disk" into the one error for it.

    Raises:
        WorkerError: ``quantize.not-enough-memory``.
        OSError: The disk is full.
    """
    try:
        yield
    except wire.WorkerError:
        raise
    except Exception as error:
        for known in _causes(error):
            if (number := _full_disk(known)) is not None:
                raise OSError(number, os.strerror(number)) from error
            if _says_no_memory(known):
                raise wire.WorkerError(
                    "quantize.not-enough-memory",
                    f"The work ran out of memory on {device}.",
                    (str(known).strip().splitlines() or ["No memory could be allocated."])[0][:400],
                    "Close other programs, use another device, or fewer or shorter calibration samples.",
                    exit_code=3,
                ) from error
        raise


def is_about_resources(error: BaseException) -> bool:
    """Whether memory or disk ran out: no fault of the model's."""
    return any(_full_disk(one) is not None or _says_no_memory(one) for one in _causes(error))


def _full_disk(error: BaseException) -> int | None:
    """The errno of a full disk; safetensors and torch tell of it in words."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        words = str(error)
        if isinstance(error, OSError) and error.errno == number:
            return number
        if f"os error {number})" in words or os.strerror(number) in words:
            return number
    return None


def _says_no_memory(error: BaseException) -> bool:
    """Whether this is Python's or torch's error for a failed allocation, on a card or in RAM."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "CUDA out of memory" in text
        or "DefaultCPUAllocator: can't allocate memory" in text
        or "DefaultCPUAllocator: not enough memory" in text
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def wrote_nothing(folder: Path) -> wire.WorkerError:
    """The error of a producer that ended without a checkpoint."""
    found = sorted(path.name for path in folder.iterdir())[:10]
    return wire.WorkerError(
        "quantize.wrote-nothing",
        "The producer ended without an error and wrote no checkpoint.",
        f"Its folder holds {', '.join(found) or 'nothing'}.",
        "The log has what it said; another producer may know this model.",
    )


def versions(modules: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that bring ``modules``, and Python's own."""
    found = {"python": platform.python_version()}
    brought_by = importlib.metadata.packages_distributions()
    for module in dict.fromkeys(modules):
        for name in brought_by.get(module, ())[:1]:
            found[name] = importlib.metadata.version(name)
    return found


def peak_rss_bytes() -> int:
    """The most memory that this process, or the largest of its children, has had in RAM."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return 1024 * max(one.ru_maxrss for one in usage)


def peak_gpu_bytes(device: str) -> int | None:
    """The most memory that torch has reserved on the card; None on the CPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    return int(torch.cuda.max_memory_reserved(device))
