"""Where a config.json keeps its quantization, and its fields as checked values: a config is untrusted JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantui.domain.architecture.config_view import positive, text_config
from quantui.domain.architecture.stored_quantization import KvCacheScheme

Fields = Mapping[str, Any]

_PLACES = ("quantization_config", "compression_config")
_SKIP_LISTS = (
    "llm_int8_skip_modules",
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "exclude",
    "skip_modules",
)


def quantization_fields(config: Fields) -> Fields | None:
    """The object that says how the checkpoint is quantized; None for 16 or 32 bit.

    In vLLM's order: the model's own before the language model's (0.32,
    transformers_utils/model_arch_config_convertor.py, get_quantization_config).
    """
    for part in (config, text_config(config)):
        for key in _PLACES:
            if isinstance(stored := part.get(key), Mapping) and stored:
                return stored
    return None


def quantization_method(config: Fields) -> str | None:
    """The ``quant_method`` a checkpoint is stored in, as vLLM names it; None for 16 or 32 bit."""
    stored = quantization_fields(config)
    return None if stored is None else method_of(stored)


def method_of(stored: Fields) -> str:
    """``quant_method`` as vLLM normalizes it; ``unknown`` when nothing tells it."""
    method = str(stored.get("quant_method") or "").lower().replace("_tensors", "-tensors")
    if method:
        return method
    if stored.get("load_in_4bit") or stored.get("load_in_8bit"):
        return "bitsandbytes"
    producer = stored.get("producer")
    if isinstance(producer, Mapping) and producer.get("name") == "modelopt":
        algorithm = str(inner(stored, "quantization").get("quant_algo") or "")
        return "modelopt_fp4" if "FP4" in algorithm.upper() else "modelopt"
    return "unknown"


def inner(stored: Fields, *names: str) -> Fields:
    """The object at the end of the path ``names``; empty when there is none."""
    for name in names:
        value = stored.get(name)
        if not isinstance(value, Mapping):
            return {}
        stored = value
    return stored


def objects(value: object) -> Iterator[Fields]:
    """The objects among the values of an object."""
    if isinstance(value, Mapping):
        yield from (each for each in value.values() if isinstance(each, Mapping))


def number(stored: Fields, *names: str) -> int | None:
    """The first positive whole number among ``names``."""
    for name in names:
        if (found := positive(stored.get(name))) is not None:
            return found
    return None


def group(stored: Fields, *names: str) -> int | None:
    """The first group size among ``names``: a positive whole number, or -1 for one scale a channel."""
    for name in names:
        if stored.get(name) == -1:
            return -1
        if (found := number(stored, name)) is not None:
            return found
    return None


def flag(stored: Fields, name: str) -> bool | None:
    """A boolean."""
    value = stored.get(name)
    return value if isinstance(value, bool) else None


def text(stored: Fields, *names: str) -> str:
    """The first string among ``names``; "" when there is none."""
    return next((value for name in names if isinstance(value := stored.get(name), str)), "")


def sides(value: object) -> tuple[int, int] | None:
    """Rows and columns of a block, from a list of two."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    rows, columns = map(positive, value)
    return None if rows is None or columns is None else (rows, columns)


def skip_list(*places: Fields) -> tuple[str, ...]:
    """What the lists of modules that are not quantized name; every producer has its own name for the list."""
    names: list[str] = []
    for place in places:
        for key in _SKIP_LISTS:
            value = place.get(key)
            if isinstance(value, list):
                names += [item for item in value if isinstance(item, str) and item]
    return tuple(dict.fromkeys(names))


def kv_cache_scheme(names: tuple[str, ...], *places: Fields) -> KvCacheScheme | None:
    """The KV cache's scheme, under the first of ``names``: an object, or a name."""
    found = next((place[name] for name in names for place in places if place.get(name)), None)
    if isinstance(found, Mapping):
        bits, dynamic = number(found, "num_bits"), flag(found, "dynamic")
        return KvCacheScheme("", found.get("type") == "float", bits, dynamic)
    return None if found is None else KvCacheScheme(found if isinstance(found, str) else "unknown")
