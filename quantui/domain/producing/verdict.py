"""Whether a quantized checkpoint that was loaded and measured may be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

BROKEN_FACTOR = 10.0
"""A perplexity so many times the base's is no loss of quantizing: the weights are wrong."""


@dataclass(frozen=True)
class Verdict:
    """``why`` is empty for a result that passes; ``loss`` is by how much perplexity grew, as a fraction."""

    loss: float | None
    why: str = ""
    fix: str = ""


def judge(
    perplexity: float | None, base: float | None, *, finite: bool, max_loss: float | None
) -> Verdict:
    """The verdict on a result with ``perplexity`` whose 16-bit model has ``base`` on the same tokens.

    None: it was not measured, and the bounds that need it do not apply.
    """
    wrong = "The producer wrote wrong weights: take another producer or method."
    if not finite or (perplexity is not None and not math.isfinite(perplexity)):
        return Verdict(None, "Its logits are not all finite numbers.", wrong)
    if perplexity is None or base is None:
        return Verdict(None)
    loss = perplexity / base - 1
    beside = f"Its perplexity is {perplexity:.4g}, the 16-bit model's {base:.4g}"
    if perplexity > BROKEN_FACTOR * base:
        return Verdict(loss, f"{beside}: more than {BROKEN_FACTOR:g} times as high.", wrong)
    if max_loss is not None and perplexity > base * (1 + max_loss):
        return Verdict(
            loss,
            f"{beside}: {loss:+.2%}, more than the {max_loss:.2%} that quantization.max_loss allows.",
            "Take a method with more bits, smaller groups or calibration texts of your own domain, or "
            "allow a greater loss.",
        )
    return Verdict(loss)
