"""What a checkpoint's ``quantization_config`` says, as typed values: the one result that its readers make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Format = Literal[
    "gptq",
    "awq",
    "bitsandbytes",
    "fp8",
    "mxfp4",
    "modelopt",
    "autoround",
    "torchao",
    "quark",
    "compressed-tensors",
    "hqq",
    "other",
]
"""Formats that are written alike; ``quant_method`` has several names for some."""
Micro = Literal["nvfp4", "mxfp4", "mxfp8", ""]
"""Floating point weights with an 8-bit scale for every 16 (NVFP4) or 32 of them (MX)."""
MICRO_GROUP: dict[str, int] = {"nvfp4": 16, "mxfp4": 32, "mxfp8": 32}


class KvCacheScheme(NamedTuple):
    """What is asked for the KV cache: a ``name`` (``FP8``), or the fields of a scheme."""

    name: str = ""
    floating: bool = False
    bits: int | None = None
    dynamic: bool | None = None


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """How the linear layers are stored; None: not stated, or stated as something that makes no sense.

    Where the config has several schemes, it is the one with the fewest bits: most weights are stored in it.
    """

    method: str
    """``quant_method``, as vLLM names it."""
    format: Format
    bits: int | None = None
    """Of a weight."""
    group_size: int | None = None
    """Weights with a common scale; -1: one scale a channel; None: a tensor, a block, or not stated."""
    block: tuple[int, int] | None = None
    """Rows and columns with a common scale."""
    floating: bool = False
    micro: Micro = ""
    symmetric: bool | None = None
    zero_points: bool = False
    """Whether a zero point is kept for each group."""
    activation_bits: int | None = None
    """16: activations are not quantized."""
    activation_floating: bool = False
    static_activations: bool = False
    """Scales of activations are in the checkpoint."""
    skipped: tuple[str, ...] = ()
    """Names and patterns of modules kept in 16 bit; those after ``re:`` are regular expressions."""
    double_quantized: bool = False
    experts_only: bool = False
    act_order: bool = False
    """Groups are of columns in the order of their activations, not in their own."""
    rotated: bool = False
    outputs_packed: bool = False
    """Packed along the outputs, as AutoAWQ does; GPTQ packs inputs."""
    schemes: int = 1
    by_name: tuple[tuple[tuple[str, ...], StoredQuantization], ...] = ()
    """Of several schemes: names and patterns as in ``skipped``, and what they are stored in; the first match counts."""
    label: str = ""
    """The producer's own name of the scheme or layout; a stranger's text."""
    kv_cache: KvCacheScheme | None = None
