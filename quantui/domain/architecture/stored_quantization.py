"""How a checkpoint is stored quantized, by its ``quantization_config``: bits, groups, bytes, and what is left out.

Formats: AutoAWQ, GPTQ, bitsandbytes, FP8, compressed-tensors, ModelOpt, MXFP4, torchao, Quark, AutoRound, HQQ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quantui.domain.architecture.config_view import positive
from quantui.domain.checkpoint_facts import quantization_method, text_config

_LEADING = re.compile(r"^(?:model\.|language_model\.|transformer\.|thinker\.)+")
_NESTED_REPEAT = re.compile(r"[+*}][)\]]*\)[+*{]")
_LONGEST_PATTERN = 400
_MOST_PATTERNS = 200
_MOST_STARS = 8
_FOUR_BIT = frozenset(
    {"awq", "gptq", "auto-round", "autoround", "intel/auto-round", "hqq", "moe_wna16"}
)
_SCALE_BYTES = 2


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """``bits`` of a weight; ``group_size`` -1: a scale a channel; ``skipped``: names or patterns kept in 16 bit."""

    method: str
    bits: int | None
    group_size: int | None
    skipped: tuple[str, ...] = ()
    symmetric: bool = True
    floating: bool = False
    double_quantized: bool = False
    experts_only: bool = False

    def bytes_of(self, rows: int, columns: int) -> float | None:
        """Bytes of one stored weight of ``rows x columns`` with its scales and zero points; None when unknown."""
        bits = self.bits
        if bits is None:
            return None
        weights = rows * columns * bits / 8
        if self.method == "bitsandbytes":
            if bits == 8:
                return weights + 4 * rows
            # NF4: a scale every 64 weights; with double quantization those are 8 bit, and 256 share a 32-bit one.
            return weights + rows * columns / 64 * (1 + 4 / 256 if self.double_quantized else 4)
        if self.floating and bits == 4:
            # NVFP4: an FP8 scale every 16; MXFP4: a shared exponent every 32.
            return weights + rows * columns / (self.group_size or 32)
        if self.floating:
            if self.group_size and self.group_size > 0:
                return weights + 4 * rows * columns / self.group_size**2
            return weights + (4 * rows if self.group_size == -1 else 4)
        if bits == 8 and (self.group_size or -1) < 0:
            return weights + 4 * rows
        size = self.group_size or -1
        groups = rows * (columns / size if size > 0 else 1)
        return weights + groups * (_SCALE_BYTES + (0 if self.symmetric else bits / 8))

    def skips(self, name: str) -> bool:
        """Whether the module ``name`` (with its layer's index) is stored in 16 bit."""
        plain, patterns = _skip_rules(self.skipped)
        bare = _LEADING.sub("", name)
        parts = bare.split(".")
        ends = range(1, len(parts) + 1)
        if any(".".join(parts[a:b]) in plain for b in ends for a in range(b)):
            return True
        return any(p.match(bare) or (also and p.match(name)) for p, also in patterns)


def stored_quantization(config: Mapping[str, Any]) -> StoredQuantization | None:
    """What the config says of its stored quantization; None for a checkpoint of 16 or 32 bit."""
    method = quantization_method(config)
    if method is None:
        return None
    stored: Mapping[str, Any] = {}
    for part in (config, text_config(config)):
        found = part.get("quantization_config") or part.get("compression_config")
        if isinstance(found, Mapping):
            stored = found
            break
    skipped = _skipped(stored)
    if method == "bitsandbytes":
        width = 8 if stored.get("load_in_8bit") is True else 4
        double = stored.get("bnb_4bit_use_double_quant") is True
        return StoredQuantization(method, width, 64, skipped, double_quantized=double)
    if method in {"fp8", "fbgemm_fp8", "finegrained_fp8"}:
        block = stored.get("weight_block_size")
        tile = positive(block[0]) if isinstance(block, list) and block else None
        if tile is None and method == "fbgemm_fp8":
            tile = -1
        return StoredQuantization(method, 8, tile, skipped, floating=True)
    if method in {"mxfp4", "gpt_oss_mxfp4"}:
        return StoredQuantization(method, 4, 32, skipped, floating=True, experts_only=True)
    if method.startswith("modelopt"):
        return _modelopt(method, stored, skipped)
    if method in {"compressed-tensors", "quark"}:
        return _grouped(method, stored, skipped)
    bits = positive(stored.get("bits")) or positive(stored.get("w_bit"))
    bits = bits or positive(stored.get("nbits")) or positive(stored.get("weight_bits"))
    if bits is None and method in _FOUR_BIT:
        bits = 4
    group = stored.get("group_size", stored.get("q_group_size"))
    size = group if isinstance(group, int) and not isinstance(group, bool) else None
    symmetric = method != "awq" and stored.get("sym", True) is not False
    return StoredQuantization(method, bits, size, skipped, symmetric)


def _modelopt(
    method: str, stored: Mapping[str, Any], skipped: tuple[str, ...]
) -> StoredQuantization:
    inner = stored.get("quantization")
    part = inner if isinstance(inner, Mapping) else stored
    algorithm = str(part.get("quant_algo") or stored.get("quant_algo") or method).upper()
    skipped = skipped + _skipped(part)
    if "FP4" in algorithm:
        group = positive(part.get("group_size")) or 16
        return StoredQuantization(method, 4, group, skipped, floating=True)
    if "FP8" in algorithm:
        size = 128 if "PB" in algorithm else (-1 if "CHANNEL" in algorithm else None)
        return StoredQuantization(method, 8, size, skipped, floating=True)
    return StoredQuantization(method, None, None, skipped)


def _grouped(
    method: str, stored: Mapping[str, Any], skipped: tuple[str, ...]
) -> StoredQuantization:
    """The first group's weights: groups of one checkpoint differ in what they target, seldom in bits."""
    groups = stored.get("config_groups")
    first: object = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    if first is None:
        first = stored.get("global_quant_config")
    weights = first.get("weights", first.get("weight")) if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return StoredQuantization(method, None, None, skipped)
    kind = str(weights.get("type") or weights.get("dtype") or "int")
    bits = positive(weights.get("num_bits")) or _bits_in(kind)
    strategy = str(weights.get("strategy") or weights.get("qscheme") or "")
    size = positive(weights.get("group_size"))
    if size is None and "channel" in strategy:
        size = -1
    block = weights.get("block_structure")
    if strategy == "block" and isinstance(block, list) and block:
        size = positive(block[0])
    symmetric = weights.get("symmetric", True) is not False
    floating = "fp" in kind or "float" in kind
    if floating and bits == 4 and size is None:
        size = 32
    return StoredQuantization(method, bits, size, skipped, symmetric, floating)


def _bits_in(name: str) -> int | None:
    found = re.search(r"\d+", name)
    return int(found.group()) if found and len(found.group()) < 3 else None


def _skipped(stored: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for key in (
        "llm_int8_skip_modules",
        "modules_to_not_convert",
        "ignored_layers",
        "ignore",
        "exclude_modules",
        "exclude",
    ):
        value = stored.get(key)
        if isinstance(value, list):
            names += [item for item in value if isinstance(item, str) and item]
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=32)
def _skip_rules(
    skipped: tuple[str, ...],
) -> tuple[frozenset[str], tuple[tuple[re.Pattern[str], bool], ...]]:
    """Names to be found as whole components, and patterns; True: to be tried on the whole name as well."""
    plain: set[str] = set()
    patterns: list[tuple[re.Pattern[str], bool]] = []
    for text in skipped:
        if text.startswith("re:"):
            compiled = _compiled(text[3:])
            if compiled is not None:
                patterns.append((compiled, True))
        elif "*" in text:
            parts = map(re.escape, _LEADING.sub("", text).split("*")[:_MOST_STARS])
            patterns.append((re.compile(".*".join(parts)), False))
        else:
            plain.add(_LEADING.sub("", text).strip("."))
    return frozenset(plain), tuple(patterns[:_MOST_PATTERNS])


def _compiled(expression: str) -> re.Pattern[str] | None:
    # A pattern comes from a stranger: what could take exponential time is not tried.
    if len(expression) > _LONGEST_PATTERN or _NESTED_REPEAT.search(expression):
        return None
    try:
        return re.compile(expression)
    except (re.error, RecursionError, OverflowError):
        return None
