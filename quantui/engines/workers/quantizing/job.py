"""What a producer is asked to make: the job's JSON as types."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Recipe:
    """How to quantize. None: the field means nothing to this method.

    ``writes`` is the catalogue's name of the format; ``group_size`` counts input features that share a
    scale, -1 for a whole row; ``ignore`` names modules that stay in 16 bit.
    """

    method: str
    producer: str
    writes: str
    bits: int
    group_size: int | None = None
    symmetric: bool | None = None
    ignore: tuple[str, ...] = ("lm_head",)
    format: str | None = None
    mixed_bits: int | None = None
    rounding: str | None = None
    iterations: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The recipe as a job has it."""
        return {**asdict(self), "ignore": list(self.ignore)}


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """A model to load. ``device`` is ``cpu`` or ``cuda:N``; sizes in bytes."""

    model: Path
    device: str = "cpu"
    trust_remote_code: bool = False
    memory_limit_bytes: int | None = None

    @classmethod
    def read(cls, job: Mapping[str, Any]) -> ModelJob:
        """The model that ``job``, whatever else it asks for, names."""
        limit = job.get("memory_limit_bytes")
        return cls(
            model=Path(job["model"]).absolute(),
            device=job.get("device") or "cpu",
            trust_remote_code=bool(job.get("trust_remote_code")),
            memory_limit_bytes=None if limit is None else int(limit),
        )

    @property
    def on_gpu(self) -> bool:
        """Whether the work is done on a card."""
        return self.device.startswith("cuda")


@dataclass(frozen=True, kw_only=True)
class Job(ModelJob):
    """One quantization; ``out`` is the folder that must not exist yet."""

    out: Path
    recipe: Recipe
    calibration: Mapping[str, Any] | None = None
    reference: Path | None = None

    @property
    def asks_hub(self) -> bool:
        """Whether the calibration data lies on the Hub: nothing else may be downloaded."""
        return str((self.calibration or {}).get("source", "")).startswith("hub:")


def read_job(job: Mapping[str, Any]) -> Job:
    """The job in its JSON form.

    Raises:
        WorkerError: ``quantize.bad-job``.
    """
    known = {field.name for field in fields(Recipe)}
    try:
        recipe = {k: v for k, v in job["recipe"].items() if k in known and v is not None}
        ignore = tuple(recipe.pop("ignore", ("lm_head",)))
        reference = job.get("reference")
        return Job(
            **vars(ModelJob.read(job)),
            out=Path(job["out"]).absolute(),
            recipe=Recipe(**recipe, ignore=ignore),
            calibration=job.get("calibration"),
            reference=Path(reference).absolute() if reference else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkerError(
            "quantize.bad-job",
            "The job of the producer is not complete.",
            f"{type(error).__name__}: {error}",
            "Run it through `quantui quantize`.",
            exit_code=2,
        ) from error
