"""Bytes of a stored quantized weight, with its scales and zero points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.architecture.stored_quantization import MICRO_GROUP

if TYPE_CHECKING:
    from quantui.domain.architecture.stored_quantization import StoredQuantization

_SCALE_BYTES = 2
_MOSTLY_4_BIT = frozenset({"awq", "gptq", "autoround", "hqq"})


def stored_bytes(stored: StoredQuantization, rows: int, columns: int) -> float | None:
    """Of one weight of ``rows x columns``; None when its format does not tell.

    Formats that are all but always of 4 bit count as that where the config leaves it out.
    """
    bits = stored.bits or (4 if stored.format in _MOSTLY_4_BIT else None)
    if bits is None:
        return None
    elements = rows * columns
    weights = elements * bits / 8
    if stored.format == "bitsandbytes":
        if bits == 8:
            return weights + 4 * rows
        # NF4: a scale every 64 weights; with double quantization those are 8 bit, and 256 share a 32-bit one.
        return weights + elements / 64 * (1 + 4 / 256 if stored.double_quantized else 4)
    group = stored.group_size
    if stored.micro:
        return weights + elements / (group if group and group > 0 else MICRO_GROUP[stored.micro])
    if stored.block is not None:
        return weights + 4 * elements / (stored.block[0] * stored.block[1])
    grouped = group is not None and group > 0
    if stored.floating and not grouped:
        return weights + (4 * rows if group == -1 else 4)
    if bits == 8 and not grouped:
        return weights + 4 * rows
    groups = elements / group if group is not None and group > 0 else rows
    return weights + groups * (_SCALE_BYTES + (bits / 8 if stored.zero_points else 0))
