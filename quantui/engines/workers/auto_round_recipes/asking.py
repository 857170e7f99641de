"""Which format, widths and sizes AutoRound is asked for; refused here what would fail after an hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui_wire import WorkerError, notice

if TYPE_CHECKING:
    from quantizing.job import Recipe

BITS = {
    "auto_round": (2, 3, 4, 8),
    "auto_gptq": (2, 3, 4, 8),
    "auto_awq": (4,),
    "llm_compressor": (2, 3, 4, 8),
}
"""Widths by format (auto-round 0.15.1, export/formats/backends/*.py, check_scheme_args)."""

MIXED = {"auto_round": (8,), "auto_gptq": (8,), "llm_compressor": (6, 8)}
"""Widths beside 4 by format. The GPTQ layout packs 2, 3, 4 and 8 bits (auto-round 0.15.1,
auto_round_extension/torch/qlinear_torch.py); compressed-tensors packs any."""

GROUP = 128


def group_size(recipe: Recipe) -> int:
    """Input features that share a scale; -1: all of them."""
    return GROUP if recipe.group_size is None else recipe.group_size


def format_of(recipe: Recipe) -> str:
    """The format to write. Widths mixed with 6 have one that can hold them.

    Raises:
        WorkerError: ``quantize.option``.
    """
    asked = recipe.format or "auto_round"
    if asked not in BITS:
        raise refused(f"no format {asked}", f"It writes {', '.join(BITS)}.")
    if recipe.bits not in BITS[asked]:
        widths = ", ".join(map(str, BITS[asked]))
        raise refused(f"no {recipe.bits}-bit weights in {asked}", f"There it has {widths} bits.")
    mixed = recipe.mixed_bits
    if mixed is None:
        return asked
    if recipe.bits != 4 or recipe.symmetric is False:
        raise refused(
            "no such mix of widths",
            "Widths are mixed with 4 bits, and symmetric ones alone are read.",
        )
    if mixed in MIXED.get(asked, ()):
        return asked
    if recipe.format in (None, "auto_round") and mixed in MIXED["llm_compressor"]:
        notice(
            f"{mixed}-bit weights have no place in AutoRound's own format: written as compressed-tensors "
            "(llm_compressor)."
        )
        return "llm_compressor"
    raise refused(
        f"no {mixed}-bit weights in {asked}",
        f"llm_compressor holds {' and '.join(map(str, MIXED['llm_compressor']))} bits beside 4.",
    )


def refused(what: str, why: str) -> WorkerError:
    """The error for an option that AutoRound lacks."""
    return WorkerError(
        "quantize.option",
        f"AutoRound makes {what}.",
        why,
        "Choose another format (--format) or width (--bits, --mixed-bits).",
        exit_code=2,
    )
