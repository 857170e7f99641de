"""Formats that describe weights and activations each by a scheme: compressed-tensors, ModelOpt, Quark.

As vLLM 0.32 reads them (quantization/compressed_tensors/compressed_tensors.py, modelopt.py, quark/quark.py) and
compressed-tensors 0.17 writes them (compressed_tensors/quantization/quant_scheme.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from quantui.domain.architecture.quantization_config import (
    Fields,
    flag,
    group,
    inner,
    kv_cache_scheme,
    number,
    objects,
    sides,
    skip_list,
    text,
)
from quantui.domain.architecture.stored_quantization import (
    MICRO_GROUP,
    Micro,
    StoredQuantization,
)

_DTYPE_BITS = re.compile(r"u?(?:int|fp)([2-8])(?!\d)")
_IMPLIED = {"modelopt_fp4": "NVFP4", "modelopt_mxfp8": "MXFP8", "mxfp8": "MXFP8"}
_ANYTHING = "re:"
_REORDERED = frozenset({"group", "dynamic"})
"""Orders of activations that need columns reordered while serving (quant_args.py, ActivationOrdering)."""
_FP8_BLOCK = (128, 128)
"""Of ModelOpt's FP8_PB_WO (modelopt.py)."""


def compressed(method: str, stored: Fields) -> StoredQuantization:
    """compressed-tensors: each group names its layers' weights and activations."""
    groups = [
        each
        for each in objects(stored.get("config_groups"))
        if isinstance(each.get("weights"), Mapping) and not _of_attention(each)
    ]
    schemes = [_scheme(method, stored, each) for each in groups]
    if not schemes:
        schemes = [StoredQuantization(method, "compressed-tensors")]
    return replace(
        min(schemes, key=lambda each: each.bits or 16),
        skipped=skip_list(stored),
        rotated=bool(stored.get("transform_config")),
        act_order=any(each.act_order for each in schemes),
        schemes=len(schemes),
        by_name=_by_name(list(zip(map(_targets, groups), schemes, strict=False))),
        kv_cache=kv_cache_scheme(("kv_cache_scheme",), stored),
    )


def _scheme(method: str, stored: Fields, each: Fields) -> StoredQuantization:
    weights: Fields = each["weights"]
    found = each.get("input_activations")
    activations: Fields = found if isinstance(found, Mapping) else {}
    bits, size = number(weights, "num_bits"), group(weights, "group_size")
    floating = weights.get("type") == "float"
    strategy = text(weights, "strategy")
    micro = _micro(floating, bits, size, text(each, "format") or text(stored, "format"))
    symmetric = flag(weights, "symmetric")
    return StoredQuantization(
        method,
        "compressed-tensors",
        bits=bits,
        group_size=size or (-1 if strategy == "channel" else MICRO_GROUP.get(micro)),
        block=sides(weights.get("block_structure")) if strategy == "block" else None,
        floating=floating,
        micro=micro,
        symmetric=symmetric,
        zero_points=symmetric is False,
        activation_bits=number(activations, "num_bits") if isinstance(found, Mapping) else 16,
        activation_floating=activations.get("type") == "float",
        static_activations=activations.get("dynamic") is False,
        act_order=weights.get("actorder") is True
        or text(weights, "actorder").lower() in _REORDERED,
        label=strategy,
    )


def _by_name(
    schemes: list[tuple[tuple[str, ...], StoredQuantization]],
) -> tuple[tuple[tuple[str, ...], StoredQuantization], ...]:
    """Names and patterns with what they are stored in; those of a class ("Linear") are for the rest."""
    if len(schemes) < 2:
        return ()
    named: list[tuple[tuple[str, ...], StoredQuantization]] = []
    rest: list[StoredQuantization] = []
    for targets, scheme in schemes:
        names = tuple(one for one in targets if "." in one or one.startswith("re:"))
        if names:
            named.append((names, scheme))
        if "Linear" in targets:
            rest.append(scheme)
    return (*named, *(((_ANYTHING,), scheme) for scheme in rest[:1]))


def _targets(scheme: Fields) -> tuple[str, ...]:
    targets = scheme.get("targets")
    return tuple(
        one for one in (targets if isinstance(targets, list) else ()) if isinstance(one, str)
    )


def _of_attention(scheme: Fields) -> bool:
    """Whether a group is about the KV cache: vLLM passes over what targets an attention class alone."""
    targets = _targets(scheme)
    return len(targets) == 1 and targets[0].endswith("Attention")


def _micro(floating: bool, bits: int | None, size: int | None, form: str = "") -> Micro:
    if not floating:
        return ""
    if bits == 4:
        return "nvfp4" if "nvfp4" in form or size == 16 else "mxfp4"
    return "mxfp8" if bits == 8 and ("mxfp8" in form or size == 32) else ""


def modelopt(method: str, stored: Fields) -> StoredQuantization:
    """ModelOpt: the algorithm's name says it all."""
    fields = inner(stored, "quantization") or stored
    algorithm = (text(fields, "quant_algo") or text(stored, "quant_algo")).upper()
    algorithm = algorithm or _IMPLIED.get(method, "")
    size = group(fields, "group_size")
    mixed = algorithm == "MIXED_PRECISION"
    bits = 4 if "FP4" in algorithm else 8 if "FP8" in algorithm else None
    micro: Micro = ""
    block = None
    if bits == 4:
        micro = "mxfp4" if "MXFP4" in algorithm else "nvfp4"
        size = size or MICRO_GROUP[micro]
    elif "MXFP8" in algorithm:
        micro, size = "mxfp8", 32
    elif bits == 8:
        block = _FP8_BLOCK if "PB" in algorithm or "BLOCK" in algorithm else None
        size = -1 if "CHANNEL" in algorithm else None
    return StoredQuantization(
        method,
        "modelopt",
        bits=bits,
        group_size=size,
        block=block,
        floating=bits is not None,
        micro=micro,
        symmetric=True if bits else None,
        activation_bits=None if bits is None else _modelopt_activations(algorithm, stored, bits),
        activation_floating=True,
        static_activations=algorithm == "FP8",
        skipped=skip_list(stored, fields),
        schemes=2 if mixed else 1,
        label=algorithm,
        kv_cache=kv_cache_scheme(("kv_cache_scheme", "kv_cache_quant_algo"), fields, stored),
    )


def _modelopt_activations(algorithm: str, stored: Fields, bits: int) -> int:
    """NVFP4 whose groups all leave activations alone is weight-only (modelopt.py, ModelOptNvFp4Config)."""
    groups = list(objects(stored.get("config_groups")))
    alone = bool(groups) and all(each.get("input_activations") is None for each in groups)
    return 16 if "A16" in algorithm or (algorithm == "NVFP4" and alone) else bits


def quark(method: str, stored: Fields) -> StoredQuantization:
    """Quark: one dtype for weights and one for activations; two steps of scales are a list of two."""
    whole = inner(stored, "global_quant_config")
    weights = _narrowest(whole.get("weight"))
    activations = _narrowest(whole.get("input_tensors"))
    dtype, scheme = text(weights, "dtype"), text(weights, "qscheme")
    bits, floating = _dtype_bits(dtype), dtype.startswith("fp")
    size = group(weights, "group_size")
    micro = _micro(floating, bits, size)
    if size is None:
        size = -1 if scheme == "per_channel" else MICRO_GROUP.get(micro)
    symmetric = flag(weights, "symmetric")
    return StoredQuantization(
        method,
        "quark",
        bits=bits,
        group_size=size,
        block=sides(weights.get("block_size")) if scheme == "per_block" else None,
        floating=floating,
        micro=micro,
        symmetric=symmetric,
        zero_points=symmetric is False,
        activation_bits=_dtype_bits(text(activations, "dtype")) if activations else 16,
        activation_floating=text(activations, "dtype").startswith("fp"),
        static_activations=activations.get("is_dynamic") is False,
        skipped=skip_list(stored),
        label=dtype,
    )


def _narrowest(value: object) -> Fields:
    listed = value if isinstance(value, list) else [value]
    steps = [each for each in listed if isinstance(each, Mapping)]
    return min(steps, key=lambda each: _dtype_bits(text(each, "dtype")) or 16, default={})


def _dtype_bits(dtype: str) -> int | None:
    found = _DTYPE_BITS.match(dtype)
    return int(found[1]) if found else None
