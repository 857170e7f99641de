"""Whether a method can run on given devices, and how; refusals in that machine's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

How = Literal["native", "weight-only", "emulated", "none"]
"""native: computed in the method's own widths (for weight-only methods, with their kernels); weight-only: stored so and
computed in 16 bit because the device lacks the units; emulated: dequantized before each use, slow; none: not at all."""


@dataclass(frozen=True)
class Support:
    """What :func:`support` finds. ``reasons`` are refusals, empty when ``supported``; ``cautions`` do not refuse."""

    supported: bool
    how: How = "native"
    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    dtype: str | None = None
    """What ``--dtype`` has to be given for it to work ("float16"), None: the model's own will do."""
