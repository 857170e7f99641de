"""Experts that transformers keeps as one tensor, taken apart so that each is calibrated as a layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streaming_merge.checkpoint import Checkpoint

_MIXTRAL = re.compile(r"\.experts\.\d+\.w1\.weight$")
_ITS_NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def take_apart(model: Any, source: Checkpoint) -> None:  # noqa: ANN401 - transformers has no stubs
    """Give each matrix of each expert of ``model`` a linear layer, to be written by the name it has in ``source``.

    Servers look for the maker's names; llm-compressor 0.14 has none for Mixtral and those named like it
    (modeling/moe/conversion_mappings.py, ARCH_TO_2D_MAPPINGS). Its way of loading experts apart
    (``load_quantizable_moe``) imports every model of transformers, those for pictures included.
    """
    from llmcompressor.modeling.moe import linearize
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    if not linearize.get_non_linearized_moes(model):
        return
    linearize.linearize_moe(model)
    if any(_MIXTRAL.search(name) for name in source.tensors):
        renamings = [
            WeightRenaming(
                source_patterns=rf"\.experts\.(\d+)\.{stored}\.",
                target_patterns=rf".experts.\1.{ours}.",
            )
            for stored, ours in _ITS_NAMES.items()
        ]
        kept = [
            one
            for one in getattr(model, "_weight_conversions", None) or ()
            if not isinstance(one, WeightConverter)
        ]
        model._weight_conversions = [*kept, *renamings]


def has_experts(model: Any) -> bool:  # noqa: ANN401
    """Whether ``model`` has experts that were taken apart."""
    from llmcompressor.modeling.moe.linearize import get_linearized_moes

    return bool(get_linearized_moes(model))
