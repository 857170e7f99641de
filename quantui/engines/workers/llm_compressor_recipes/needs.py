"""How much memory a recipe takes, by the checkpoint's headers."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantizing.job import Recipe
    from streaming_merge.checkpoint import Checkpoint, Tensor

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")

ACTIVATIONS = {"awq": 8}
"""Copies of the hidden states of all samples that lie in memory at once; 3 where not named: what goes into
a layer, what comes out of it, and its masks. AWQ keeps what goes into attention and MLP, and two outputs."""


def ram_bytes(source: Checkpoint, recipe: Recipe, tokens: int, *, wide: bool) -> int:
    """RAM for the model, the samples' hidden states and what the method keeps of one layer.

    Bytes: the weights (twice where they are computed in float32) + copies x tokens x hidden size x
    bytes of a value + of the largest layer: its weights in float32 and, for GPTQ, a Hessian of
    inputs x inputs in float32 for each linear layer, three more while the largest is inverted.
    """
    weights = source.bytes * (2 if wide else 1)
    value = 4 if wide else 2
    hidden = _hidden(source)
    kept = ACTIVATIONS.get(recipe.method, 3) * tokens * hidden * value
    return weights + (kept if tokens else 0) + layer_bytes(source, recipe)


def layer_bytes(source: Checkpoint, recipe: Recipe) -> int:
    """Bytes that the work on the largest decoder layer takes beside the model."""
    by_layer: dict[str, list[Tensor]] = defaultdict(list)
    for name, tensor in source.tensors.items():
        match = _LAYER.search(name)
        if match and len(tensor.shape) >= 2:
            by_layer[name[: match.end()]].append(tensor)
    hessians = recipe.method == "gptq" or recipe.rounding == "gptq"
    return max((_layer(tensors, hessians=hessians) for tensors in by_layer.values()), default=0)


def _layer(tensors: list[Tensor], *, hessians: bool) -> int:
    weights = sum(4 * tensor.rows * tensor.columns for tensor in tensors)
    if not hessians:
        return weights
    # Experts stored as one tensor have a Hessian each.
    each = sum(
        4 * tensor.columns**2 * (tensor.shape[0] if len(tensor.shape) > 2 else 1)
        for tensor in tensors
    )
    return weights + each + 3 * max(4 * tensor.columns**2 for tensor in tensors)


def _hidden(source: Checkpoint) -> int:
    text = source.config.get("text_config")
    config = text if isinstance(text, dict) else source.config
    return int(config.get("hidden_size") or 0)
