"""The typed view of ``data/use_cases.toml``: what a model is wanted for, and what counts then."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal, get_args

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping

Criterion = Literal["speed", "quality", "memory", "room", "context", "effort", "hardware", "cards"]
"""What a choice is judged by; the head of ``data/use_cases.toml`` says what each means."""

CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
DEFAULT_USE_CASE = "balanced"


@dataclass(frozen=True)
class UseCase:
    """One use. ``context`` in tokens and ``users`` at the same time are what is assumed when nothing is said.

    ``weights`` add up to one. ``loss_scale`` is the loss of quality, in percent, at which nothing is left of it;
    smaller ones count as ``(loss / loss_scale) ** loss_power``.
    ``prefers``: methods that the use is about, ranked first where they work.
    """

    name: str
    title: str
    summary: str
    context: int
    users: int
    weights: Mapping[Criterion, float]
    loss_scale: float
    loss_power: float
    reason: str
    source: str
    prefers: tuple[str, ...] = ()

    def weight(self, criterion: Criterion) -> float:
        """The criterion's share; 0 when it does not count."""
        return self.weights.get(criterion, 0.0)


@cache
def use_cases() -> Mapping[str, UseCase]:
    """Every use case by name, in the catalogue's order."""
    import tomllib

    text = resources.files("quantui.data").joinpath("use_cases.toml").read_text(encoding="utf-8")
    return {
        name: UseCase(name=name, **{**entry, "prefers": tuple(entry.get("prefers", ()))})
        for name, entry in tomllib.loads(text).items()
    }


def use_case(name: str) -> UseCase:
    """The use case called ``name`` (``_`` and spaces may stand for ``-``).

    An unknown one is a QuantuiError with the nearest name.
    """
    known = use_cases()
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    if wanted in known:
        return known[wanted]
    import difflib

    near = difflib.get_close_matches(wanted, known, 1, 0.4)
    raise QuantuiError(
        "recommend.unknown-use-case",
        f"There is no use case `{name}`.",
        fix=(f"Did you mean `{near[0]}`? " if near else "") + f"Known: {', '.join(known)}.",
    )
