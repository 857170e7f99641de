"""What others measured: the typed view of ``data/evidence.toml``, each figure with whose it is."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.performance.gpu_table import GpuModel


class Band(NamedTuple):
    """A factor with what it may be: the least, the likely, the most."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class Source:
    """Whose figure it is, where it stands, and of when."""

    name: str
    who: str
    url: str
    date: str

    def __str__(self) -> str:
        where = f", {self.url}" if self.url else ""
        return f"{self.who}{where}, {self.date}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """Formats whose matrix multiplication is alike.

    ``bandwidth``: they read weights at that part of the rate at which 16-bit kernels read theirs; ``arithmetic``:
    they reach that part of the units' rate. ``capability``: only for cards of that compute capability.
    """

    name: str
    methods: tuple[str, ...]
    bandwidth: Band
    arithmetic: Band
    source: str
    capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SpeedPoint:
    """Tokens a second that one user gets of ``users``, by kernel; the key "none" is 16 bit.

    ``ratio_only``: of an engine so old that only what it says of formats among themselves is used.
    """

    source: Source
    model: str
    parameters: float
    active_parameters: float
    card: str
    tensor_parallel: int
    users: int
    context: int
    tokens_per_s: Mapping[str, float] = field(hash=False)
    ratio_only: bool = False

    def on(self, gpu: GpuModel) -> bool:
        """Whether ``gpu`` is the card it was measured on (a MIG slice is not)."""
        words = gpu.name.split()
        return "MIG" not in words and all(word in words for word in self.card.split())


@dataclass(frozen=True, slots=True)
class SpeedRatio:
    """Total speed over that of 16 bit, by kernel or method, for loads of ``users`` (least, most).

    ``context``: tokens a request, about; ``most_context``: up to which it is used.
    """

    source: Source
    parameters: float
    capability: tuple[int, int]
    users: tuple[int, int]
    context: int
    most_context: int
    ratios: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class QualityPoint:
    """Scores of one model on one set of tasks, in 16 bit and by method."""

    source: Source
    metric: str
    model: str
    parameters: float
    base: float
    scores: Mapping[str, float] = field(hash=False)
    note: str = ""

    def loss_percent(self, method: str) -> float:
        """What ``method`` loses of the 16-bit score, percent; negative where it scored better."""
        return (1 - self.scores[method] / self.base) * 100


@dataclass(frozen=True, slots=True)
class LossCurve:
    """What formats of ``least_bits`` to ``most_bits`` weight bits (the most excluded) are held against.

    ``reference``: the methods whose mean loss by model size is the curve. ``prior``: that many percent of loss count
    as measured equal to the curve, so that a single score does not make a method look good or bad.
    """

    least_bits: float
    most_bits: float
    reference: tuple[str, ...]
    prior: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says of methods, shown with their name and not computed with; ``disputed`` says why not."""

    source: Source
    methods: tuple[str, ...]
    card: str
    text: str
    disputed: str = ""

    def __str__(self) -> str:
        doubt = f" (doubtful: {self.disputed})" if self.disputed else ""
        return f"{self.source.who}: {self.text}{doubt}"


@dataclass(frozen=True)
class Evidence:
    """Everything published that quantui knows of."""

    kernels: tuple[Kernel, ...] = ()
    speeds: tuple[SpeedPoint, ...] = ()
    ratios: tuple[SpeedRatio, ...] = ()
    qualities: tuple[QualityPoint, ...] = ()
    loss_curves: tuple[LossCurve, ...] = ()
    claims: tuple[Claim, ...] = ()

    def kernel(self, name: str) -> Kernel:
        """The kernel called ``name``; KeyError when there is none."""
        return next(kernel for kernel in self.kernels if kernel.name == name)

    def claims_about(self, method: str, card: str = "") -> tuple[Claim, ...]:
        """Claims about ``method`` that are of no card or of ``card`` (a card's name, as in :class:`GpuModel`)."""
        words = card.split()
        return tuple(
            claim
            for claim in self.claims
            if method in claim.methods
            and (not claim.card or all(word in words for word in claim.card.split()))
        )


@cache
def published() -> Evidence:
    """The evidence that comes with quantui."""
    text = resources.files("quantui.data").joinpath("evidence.toml").read_text(encoding="utf-8")
    return read_evidence(tomllib.loads(text))


def read_evidence(document: Mapping[str, Any]) -> Evidence:
    """Evidence in the form of ``data/evidence.toml``. KeyError and TypeError where the form is wrong."""
    sources = {name: Source(name=name, **entry) for name, entry in document["source"].items()}
    kernels = tuple(_kernel(name, entry) for name, entry in document.get("kernel", {}).items())
    return Evidence(
        kernels=kernels,
        speeds=tuple(
            point for entry in document.get("speed", ()) for point in _speeds(entry, sources)
        ),
        ratios=tuple(_ratio(entry, sources) for entry in document.get("ratio", ())),
        qualities=tuple(
            point for entry in document.get("quality", ()) for point in _qualities(entry, sources)
        ),
        loss_curves=tuple(map(_loss_curve, document.get("loss_curve", {}).values())),
        claims=tuple(
            Claim(
                source=sources[entry["source"]],
                methods=tuple(entry["methods"]),
                card=entry.get("card", ""),
                text=entry["text"],
                disputed=entry.get("disputed", ""),
            )
            for entry in document.get("claim", ())
        ),
    )


def _capability(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _kernel(name: str, entry: Mapping[str, Any]) -> Kernel:
    return Kernel(
        name=name,
        methods=tuple(entry["methods"]),
        bandwidth=Band(*entry["bandwidth"]),
        arithmetic=Band(*entry["arithmetic"]),
        source=entry["source"],
        capability=_capability(entry["capability"]) if "capability" in entry else None,
    )


def _speeds(entry: Mapping[str, Any], sources: Mapping[str, Source]) -> list[SpeedPoint]:
    parameters = entry["billions"] * 1e9
    return [
        SpeedPoint(
            source=sources[entry["source"]],
            model=entry["model"],
            parameters=parameters,
            active_parameters=entry.get("active_billions", entry["billions"]) * 1e9,
            card=entry["card"],
            tensor_parallel=entry.get("tensor_parallel", 1),
            users=point["users"],
            context=point["context"],
            tokens_per_s={
                key: value for key, value in point.items() if key not in ("users", "context")
            },
            ratio_only=entry.get("ratio_only", False),
        )
        for point in entry["points"]
    ]


def _ratio(entry: Mapping[str, Any], sources: Mapping[str, Source]) -> SpeedRatio:
    known = ("source", "billions", "capability", "users", "context", "most_context")
    least, most = entry["users"]
    return SpeedRatio(
        source=sources[entry["source"]],
        parameters=entry["billions"] * 1e9,
        capability=_capability(entry["capability"]),
        users=(least, most),
        context=entry["context"],
        most_context=entry["most_context"],
        ratios={key: value for key, value in entry.items() if key not in known},
    )


def _loss_curve(entry: Mapping[str, Any]) -> LossCurve:
    least, most = entry["weight_bits"]
    return LossCurve(least, most, tuple(entry["reference"]), entry["prior"])


def _qualities(entry: Mapping[str, Any], sources: Mapping[str, Source]) -> list[QualityPoint]:
    known = ("model", "billions", "base")
    return [
        QualityPoint(
            source=sources[entry["source"]],
            metric=entry["metric"],
            model=model["model"],
            parameters=model["billions"] * 1e9,
            base=model["base"],
            scores={key: value for key, value in model.items() if key not in known},
            note=entry.get("note", ""),
        )
        for model in entry["models"]
    ]
