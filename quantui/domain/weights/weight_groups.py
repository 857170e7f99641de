"""How a model's weights are counted: groups of tensors that are alike, and the bytes they make on one GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

WeightRole = Literal[
    "linear",
    "expert",
    "embedding",
    "head",
    "norm",
    "router",
    "bias",
    "vision",
    "convolution",
    "state",
    "other",
]
WeightSplit = Literal["column", "row", "vocabulary", "kv_heads", "experts", "none"]
"""How tensor parallel divides it: output rows (``column``), input columns (``row``), vocabulary rows, K/V heads
(whole heads; repeated when there are fewer heads than ranks), each expert's inner size, or not at all."""
WeightStage = Literal["first", "layer", "last"]


TABLE = "rotary_emb.cos_sin_cache"
"""The name of a group without parameters: ``rows`` elements that vLLM computes while loading, on every GPU."""


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """``count`` tensors of ``rows x columns`` that are named, stored and split alike.

    ``name`` is the tensor's name in the checkpoint, without ``.weight``, the layer's index (and the expert's)
    written as ``{}``: ``model.layers.{}.self_attn.q_proj``.
    """

    role: WeightRole
    name: str
    elements: int
    """Of all ``count`` tensors together; 4-bit values that are packed count as what they stand for."""
    rows: int
    """Output features of one tensor; vectors have their length here and one column."""
    columns: int
    count: int
    split: WeightSplit
    stage: WeightStage
    layers: tuple[int, ...] = ()
    """Layer indices that hold ``count / len(layers)`` of them each; empty outside of the layers."""
    heads: int = 0
    """``kv_heads``: how many heads the rows are; otherwise 0."""
    quantized: bool = False
    """Stored quantized; in a 16-bit checkpoint: quantized by methods that quantize linear layers."""
    stored_bytes: int | None = None
    """Bytes in the checkpoint with scales and zero points, from headers; None without headers."""
    stored_width: float | None = None
    """Bytes an element as stored, scales included; None: not stored quantized."""
    stored_as: str = ""
    """The checkpoint's ``quant_method`` where it is stored quantized."""
    exact: bool = True
    """False: a guess, for a model whose form is not known."""


@dataclass(frozen=True)
class WeightBytes:
    """What the weights take once loaded, in bytes."""

    per_rank: int
    """On the GPU with the most."""
    total: int
    """Over all GPUs, with what is held more than once."""
    by_role: Mapping[str, int]
    """Of that GPU."""
    replicated: int
    """The part of ``per_rank`` that every tensor parallel rank holds whole."""
    error_fraction: float
    """The true value is expected within ``per_rank * (1 +- error_fraction)``."""
    formula: str
    source: str
