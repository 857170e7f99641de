"""Every picture of the wizard: what it shows, and how to get there."""

from __future__ import annotations

import shelf
import world
from wizard import NARROW, Picture

MODEL = {"model": shelf.BASE, "use_case": "balanced"}


def with_models(wizard: object) -> None:
    """The model and the adapter that the pictures are about."""
    del wizard
    shelf.stock()


PICTURES = (
    Picture("hardware", "hardware", ("RTX 4090",)),
    Picture("hardware-80x24", "hardware", ("RTX 4090",), NARROW),
    Picture("use-case", "use_case", ("balanced",)),
    Picture("model", "model", ("Qwen2.5-7B",), prepare=with_models),
    Picture("model-80x24", "model", ("Qwen2.5-7B",), NARROW, prepare=with_models),
    Picture("method", "method", ("FP8",), answers=MODEL, prepare=with_models),
    Picture("method-80x24", "method", ("FP8",), NARROW, answers=MODEL, prepare=with_models),
    Picture("why", "method", ("FP8",), keys=("w",), answers=MODEL, prepare=with_models),
    Picture("review", "review", ("quantui",), answers=MODEL, prepare=with_models),
)
