"""Whether quantui makes a checkpoint that is lacking: what is worth it, and whether this machine has the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.choosing.costs import LENGTH, SAMPLES
from quantui.domain.producing.memory import Room, sizes, where

if TYPE_CHECKING:
    from quantui.domain.choosing.recommendation import Situation
    from quantui.domain.producing.recipe import Recipe
    from quantui.domain.weights.weight_groups import WeightGroup

NOT_TO_BE_MADE: dict[str, tuple[str, tuple[str, ...]]] = {
    "quark": (
        "Quark checkpoints are made for AMD cards; llm-compressor writes the same formats for these.",
        (),
    ),
    "modelopt": ("ModelOpt writes FP8 and NVFP4, which are listed by their own names.", ()),
    "gguf": ("GGUF is llama.cpp's format; vLLM reads it through a plugin and slowly.", ()),
    "torchao": (
        "torchao checkpoints are served unpacked: nothing is saved on disk, and little in memory.",
        (),
    ),
    "deepseek_v4_fp8": ("It is what its maker publishes DeepSeek-V4 in.", ()),
    "bitsandbytes_8bit": (
        "It runs without CUDA graphs; W8A16 and INT8 W8A8 hold 8 bit without that.",
        (),
    ),
    "w4a16": (
        "By this name it is made by plain rounding: AWQ and GPTQ write the same format and lose less.",
        ("awq", "gptq"),
    ),
}
"""Formats that are served when a checkpoint of them is there, and that are not worth making: why, and what is."""


def lacks_memory(situation: Situation, recipe: Recipe) -> str:
    """Why no device here can make it; empty where one can, or the memory is not known."""
    weights = weights_16bit(situation.census) or situation.stored_bytes or 0
    of = sizes(
        weights,
        weights,
        situation.shape.hidden_size,
        situation.shape.parameters,
        situation.census,
    )
    report = situation.hardware
    gpus = tuple(
        gpu for gpu in report.gpus if situation.gpus is None or gpu.index in situation.gpus
    )
    found = where(
        recipe,
        of,
        Room(gpus, report.host, None),
        device="auto",
        samples=SAMPLES,
        length=LENGTH,
    )
    return "" if found.devices else " ".join(found.reasons)


def weights_16bit(census: tuple[WeightGroup, ...] | None) -> int:
    """Bytes of all weights in 16 bit; 0 when they could not be counted."""
    return 2 * sum(group.elements for group in census or ())
