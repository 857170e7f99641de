"""How much memory a recipe takes, by the checkpoint's headers."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantizing.job import Recipe
    from streaming_merge.checkpoint import Checkpoint, Tensor

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def ram_bytes(source: Checkpoint, recipe: Recipe, tokens: int, longest: int, *, wide: bool) -> int:
    """RAM for the model, what is kept of all samples at once, and the work on one layer.

    Bytes: the weights (twice where they are computed in float32) + tokens x bytes of a value x what a
    token has: its hidden state into and out of a layer and the rows of its masks (2 x hidden + 3 x longest
    sample), for AWQ also what goes into each block and two outputs (10 x hidden + 2 x intermediate +
    3 x longest) + of the largest layer: its weights in float32 and, for GPTQ, a Hessian of inputs x inputs
    in float32 for each linear layer, three more while the largest is inverted.

    Measured with 65,536 tokens (float32, hidden 256, intermediate 768, samples of 512): AWQ 1.5 GB beside
    the libraries, where this gives 1.5; GPTQ 0.45 GB, where this gives 0.55.
    """
    weights = source.bytes * (2 if wide else 1)
    hidden, inner = _size(source, "hidden_size"), _size(source, "intermediate_size")
    a_token = 2 * hidden + 3 * longest
    if recipe.method == "awq":
        a_token = 10 * hidden + 2 * inner + 3 * longest
    return weights + tokens * (4 if wide else 2) * a_token + layer_bytes(source, recipe)


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


def _size(source: Checkpoint, name: str) -> int:
    text = source.config.get("text_config")
    config = text if isinstance(text, dict) else source.config
    found = config.get(name)
    return found if isinstance(found, int) else 0
