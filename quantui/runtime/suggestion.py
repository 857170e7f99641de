"""The method a new profile gets when nobody names one: the best that quantui can serve here as things are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.runtime.engine_version import engine_version
from quantui.runtime.probe import probe_hardware
from quantui.runtime.recommending import recommend_here
from quantui.runtime.subject import subject_of

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.models import AdapterSpec, ModelSpec

_TOLD = 3
"""Reasons that are told: the rest is for `quantui recommend`."""


@dataclass(frozen=True)
class Suggestion:
    """The method, the options it needs in the profile, and why it."""

    method: str
    title: str
    rank: str
    reasons: tuple[str, ...]
    tensor_parallel: int = 1
    gpus: tuple[int, ...] = ()
    dtype: str | None = None

    def applied_to(self, draft: Draft) -> Draft:
        """``draft`` with the method and what it needs."""
        draft = draft.with_option("quantization", "method", self.method)
        if self.tensor_parallel > 1:
            draft = draft.with_option("serve", "tensor_parallel", self.tensor_parallel)
        if self.gpus:
            draft = draft.with_option("serve", "visible_devices", self.gpus)
        if self.dtype is not None:
            draft = draft.with_option("serve", "dtype", self.dtype)
        return draft


def suggest(model: ModelSpec, adapter: AdapterSpec | None, use: str) -> Suggestion | None:
    """The best choice that quantui gets to from the model that was named; None when nothing can be recommended.

    The Hub is not searched: a profile is for the model that was named.
    """
    report = probe_hardware()
    subject = subject_of(model, adapter, report, engine_version(report))
    try:
        found = recommend_here(subject, use=use, offline=True).recommendation
    except QuantuiError:
        return None
    able = [one for one in found.choices if one.ready and one.variant is None]
    able = [one for one in able if one.pipeline_parallel == 1]
    if not able:
        return None
    best = able[0]
    first = found.choices[0]
    rank = f"the best for {found.use_case}"
    if best is not first:
        rank += f" that can be had from it here ({first.title} is ranked first)"
    return Suggestion(
        best.method,
        best.title,
        rank,
        (
            *best.reasons[:_TOLD],
            *(f"{step.text}." for step in best.cost.steps if step.kind == "make"),
        ),
        best.tensor_parallel,
        best.gpus if set(best.gpus) != {gpu.index for gpu in report.gpus} else (),
        best.support.dtype,
    )
