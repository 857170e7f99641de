"""Quantities as people type them: tokens, counts, fractions, GPU indices, versions. Pure.

Each function takes the option's name, so that the error names it, and raises QuantuiError
``arguments.bad-value``.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_TOKENS = 1024**3
"""A thousand times the longest context of any published model."""
MOST_USERS = 1_000_000
MOST_RANKS = 4096

DTYPES = {name: name for name in ("auto", "bfloat16", "float16", "float32", "half", "float")} | {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}
"""Values of vLLM's --dtype (vllm/config/model.py, ModelDType, 0.32), and what people write for them."""
KV_DTYPES = {
    name: name
    for name in (
        "auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "nvfp4",
        "int8_per_token_head", "fp8_per_token_head", "int4_per_token_head",
    )
} | {"bf16": "bfloat16", "fp16": "float16"}  # fmt: skip
"""Values of vLLM's --kv-cache-dtype whose size is known (vllm/config/cache.py, CacheDType, 0.32)."""

_WHOLE = re.compile(r"\d{1,15}(?:_\d{3})*", re.ASCII)
_SUFFIXED = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([kKmM])", re.ASCII)
_SIZED = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)", re.ASCII)
_SIZES: dict[str, int] = {
    letter + suffix: int(base**power)
    for power, letter in enumerate("kmgtp", 1)
    for suffix, base in (("", 1000), ("b", 1000), ("ib", 1024))
} | {"b": 1}
_AGES = {
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
    **dict.fromkeys(("m", "mo", "month", "months"), 30 * 86400),
    **dict.fromkeys(("y", "year", "years"), 365 * 86400),
}
_FACTORS = {"k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}
_VERSION = re.compile(
    r"v?(\d{1,4}\.\d{1,4}(?:\.\d{1,6}){0,2})(?:\.x|((?:(?:rc|a|b|\.?post|\.?dev)\d+)*)(?:\+[A-Za-z0-9.]{1,40})?)",
    re.ASCII,
)


def tokens(option: str, text: str) -> int:
    """``8192``, ``8k`` (8000), ``8K`` (8192), ``1m``, ``1M``: the suffixes of vLLM's --max-model-len.

    (vllm/utils/argparse_utils.py, human_readable_int, 0.32: small letters count in thousands.)
    """
    text = text.strip()
    suffixed = _SUFFIXED.fullmatch(text)
    if suffixed:
        value = float(suffixed[1]) * _FACTORS[suffixed[2]]
        if value == int(value) and 1 <= value <= MOST_TOKENS:
            return int(value)
    elif _WHOLE.fullmatch(text) and 1 <= int(text) <= MOST_TOKENS:
        return int(text)
    raise bad_value(
        option,
        text,
        f"It takes a number of tokens, from 1 to {MOST_TOKENS}.",
        f"For example {option} 8192, {option} 32k (32000) or {option} 32K (32768).",
    )


def count(option: str, text: str, what: str, *, most: int = MOST_USERS, least: int = 1) -> int:
    """A whole number of ``what``."""
    text = text.strip()
    if _WHOLE.fullmatch(text) and least <= int(text) <= most:
        return int(text)
    raise bad_value(
        option,
        text,
        f"It takes a whole number of {what}, from {least} to {most}.",
        f"For example {option} {max(least, 4)}.",
    )


def fraction(option: str, text: str) -> float:
    """A part of a GPU's memory, above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 < value <= 1:
        return value
    raise bad_value(
        option,
        text,
        "It takes the part of the GPU's memory that vLLM may use, above 0 and at most 1.",
        f"For example {option} 0.9.",
    )


def gpu_indices(option: str, text: str) -> tuple[int, ...]:
    """``0,1`` as ``(0, 1)``: in this order, none twice; ``none`` as (): the CPU."""
    if text.strip().lower() == "none":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if all(re.fullmatch(r"\d{1,4}", part, re.ASCII) for part in parts):
        indices = tuple(map(int, parts))
        if len(set(indices)) == len(indices):
            return indices
        raise bad_value(option, text, "It names a GPU twice.", f"For example {option} 0,1.")
    raise bad_value(
        option,
        text,
        "It takes GPUs by the numbers that `quantui doctor` shows, with commas between them.",
        f"For example {option} 0,1; {option} none is the CPU.",
    )


def version(option: str, text: str) -> str:
    """A version of vLLM, ``0.32``, ``0.32.0`` or ``0.32.x``; a leading v and a build's own name are dropped."""
    match = _VERSION.fullmatch(text.strip())
    if match:
        return match[1] + (match[2] or "")
    raise bad_value(option, text, "It takes a version of vLLM.", f"For example {option} 0.32.0.")


def data_size(option: str, text: str) -> int:
    """Bytes: ``200GB`` and ``200G`` (10^9), ``200GiB`` (2^30); the letters may be small."""
    found = _SIZED.fullmatch(text.strip())
    factor = _SIZES.get(found[2].lower()) if found else None
    if found and factor:
        return round(float(found[1]) * factor)
    raise bad_value(
        option,
        text,
        "It takes a number of bytes with its unit.",
        f"For example {option} 200GB (10^9 bytes each), {option} 200GiB (2^30) or {option} 500MB.",
    )


def age(option: str, text: str) -> float:
    """Seconds: ``12h``, ``30d``, ``2w``, ``6m`` (months of 30 days), ``1y`` (of 365 days)."""
    found = _SIZED.fullmatch(text.strip())
    factor = _AGES.get(found[2].lower()) if found else None
    if found and factor:
        return float(found[1]) * factor
    raise bad_value(
        option,
        text,
        "It takes a time: a number with h, d, w, m (months) or y.",
        f"For example {option} 30d, {option} 2w or {option} 6m.",
    )


def choice(option: str, text: str, known: Mapping[str, str]) -> str:
    """One of ``known``: what may be written, and what it stands for."""
    wanted = text.strip().lower()
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, 1, 0.5)
    names = ", ".join(dict.fromkeys(known.values()))
    fix = f"Did you mean {near[0]}?" if near else f"For example {option} {next(iter(known))}."
    raise bad_value(option, text, f"It takes {names}.", fix)


def bad_value(option: str, text: str, why: str, fix: str) -> QuantuiError:
    """The error for an option's value."""
    return QuantuiError("arguments.bad-value", f"{option} does not take {text[:60]!r}.", why, fix)
