"""The one reading of ``quantization_config``: each format's fields, as vLLM 0.32 reads them.

vllm/model_executor/layers/quantization: auto_awq.py, auto_gptq.py, fp8.py, fbgemm_fp8.py, mxfp4.py, torchao.py,
inc/inc.py; bitsandbytes in vllm_bnb_plugin/quantization/config.py; HQQ, which vLLM has left, as transformers
writes it (HqqConfig). A config is untrusted: whatever is of another type counts as left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quantui.domain.architecture.quantization_config import (
    Fields,
    flag,
    group,
    inner,
    method_of,
    number,
    quantization_fields,
    sides,
    skip_list,
    text,
)
from quantui.domain.architecture.quantization_schemes import compressed, modelopt, quark
from quantui.domain.architecture.stored_quantization import StoredQuantization

_SPECIAL = frozenset("*+?^$()[]{}|\\")
"""What makes a key of AutoRound's ``extra_config`` a regular expression (inc/config_parser.py)."""


def read_quantization(config: Mapping[str, Any]) -> StoredQuantization | None:
    """What the checkpoint of ``config`` (its config.json) is stored in; None for 16 or 32 bit. Never raises."""
    stored = quantization_fields(config)
    if stored is None:
        return None
    method = method_of(stored)
    return _READERS.get(method, _other)(method, stored)


def _gptq(method: str, stored: Fields) -> StoredQuantization:
    symmetric = flag(stored, "sym")
    rules = stored.get("dynamic")
    # GPTQModel: a module that matches a key beginning with "-:" is left out.
    left_out = (
        f"re:{key[2:]}" for key in (rules if isinstance(rules, Mapping) else ()) if key[:2] == "-:"
    )
    return StoredQuantization(
        method,
        "gptq",
        bits=number(stored, "bits"),
        group_size=group(stored, "group_size"),
        symmetric=symmetric,
        zero_points=symmetric is False,
        activation_bits=16,
        skipped=(*skip_list(stored), *left_out),
        act_order=stored.get("desc_act") is True,
        label="AutoRound" if stored.get("autoround_version") else "",
    )


def _awq(method: str, stored: Fields) -> StoredQuantization:
    zero_point = flag(stored, "zero_point")
    return StoredQuantization(
        method,
        "awq",
        bits=number(stored, "w_bit", "bits"),
        group_size=group(stored, "q_group_size", "group_size"),
        symmetric=None if zero_point is None else not zero_point,
        # vLLM holds qzeros whatever zero_point says (auto_awq.py, create_weights).
        zero_points=True,
        activation_bits=16,
        skipped=skip_list(stored),
        outputs_packed=True,
    )


def _bitsandbytes(method: str, stored: Fields) -> StoredQuantization:
    eight = stored.get("load_in_8bit") is True
    return StoredQuantization(
        method,
        "bitsandbytes",
        bits=8 if eight else 4,
        activation_bits=16,
        skipped=skip_list(stored),
        double_quantized=not eight and stored.get("bnb_4bit_use_double_quant") is True,
        label=text(stored, "bnb_4bit_quant_type"),
    )


def _fp8(method: str, stored: Fields) -> StoredQuantization:
    block = sides(stored.get("weight_block_size"))
    return StoredQuantization(
        method,
        "fp8",
        bits=8,
        block=block,
        floating=True,
        symmetric=True,
        activation_bits=8,
        activation_floating=True,
        static_activations=block is None and stored.get("activation_scheme") == "static",
        skipped=skip_list(stored),
    )


def _mxfp4(method: str, stored: Fields) -> StoredQuantization:
    return StoredQuantization(
        method,
        "mxfp4",
        bits=4,
        group_size=32,
        floating=True,
        micro="mxfp4",
        activation_bits=16,
        skipped=skip_list(stored),
        experts_only=True,
    )


def _autoround(method: str, stored: Fields) -> StoredQuantization:
    bits, symmetric = number(stored, "bits"), flag(stored, "sym")
    packing, kind = text(stored, "packing_format"), text(stored, "data_type")
    layers = stored.get("extra_config")
    left_out = (
        f"re:.*(?:{name})" if _SPECIAL & set(name) else name
        for name, fields in (layers.items() if isinstance(layers, Mapping) else ())
        if isinstance(fields, Mapping) and (number(fields, "bits") or 0) >= 16
    )
    outputs_packed = "awq" in packing
    return StoredQuantization(
        method,
        "autoround",
        bits=bits,
        group_size=group(stored, "group_size"),
        block=sides(stored.get("group_size")),
        floating="fp" in kind,
        micro=("mxfp8" if bits == 8 else "mxfp4") if "mx_fp" in kind else "",
        symmetric=symmetric,
        zero_points=symmetric is False or outputs_packed,
        activation_bits=number(stored, "act_bits") or 16,
        activation_floating="fp" in text(stored, "act_data_type"),
        skipped=(*skip_list(stored), *left_out),
        outputs_packed=outputs_packed,
        label=packing.removeprefix("auto_round:"),
    )


def _torchao(method: str, stored: Fields) -> StoredQuantization:
    kind = stored.get("quant_type")
    chosen = inner(stored, "quant_type", "default")
    data = inner(chosen, "_data")
    modules = inner(data, "module_fqn_to_config")
    left_out = (name for name, scheme in modules.items() if scheme is None)
    if modules:
        chosen = inner(modules, "_default")
        data = inner(chosen, "_data")
    name = kind if isinstance(kind, str) else text(chosen, "_type")
    squeezed = name.lower().replace("_", "")
    bits = next((size for size in (4, 8) if f"int{size}weight" in squeezed), None)
    bits = bits or (8 if "float8" in squeezed else None)
    active = "dynamicactivation" in squeezed or "staticactivation" in squeezed
    return StoredQuantization(
        method,
        "torchao",
        bits=bits,
        group_size=group(data, "group_size") or group(stored, "group_size"),
        floating="float8weight" in squeezed,
        activation_bits=8 if active else 16 if bits else None,
        activation_floating="float8dynamic" in squeezed,
        skipped=(*skip_list(stored), *left_out),
        label=name,
    )


def _hqq(method: str, stored: Fields) -> StoredQuantization:
    weights = inner(stored, "quant_config", "weight_quant_params") or stored
    return StoredQuantization(
        method,
        "hqq",
        bits=number(weights, "nbits", "bits"),
        group_size=group(weights, "group_size"),
        zero_points=True,
        activation_bits=16,
        skipped=skip_list(stored),
    )


def _other(method: str, stored: Fields) -> StoredQuantization:
    """A format of which only the usual fields are known; FBGEMM's FP8 has a scale a channel."""
    symmetric = flag(stored, "sym")
    fp8 = "fp8" in method
    block = sides(stored.get("weight_block_size")) if fp8 else None
    size = group(stored, "group_size", "q_group_size")
    return StoredQuantization(
        method,
        "other",
        bits=8 if fp8 else number(stored, "bits", "w_bit", "nbits", "weight_bits"),
        group_size=-1 if method in {"fbgemm_fp8", "ptpc_fp8"} else size,
        block=block,
        floating=fp8,
        symmetric=symmetric,
        zero_points=symmetric is False,
        activation_bits=8 if fp8 else None,
        activation_floating=fp8,
        skipped=skip_list(stored),
    )


_READERS: dict[str, Callable[[str, Fields], StoredQuantization]] = {
    **dict.fromkeys(("gptq", "gptq_marlin", "auto_gptq"), _gptq),
    **dict.fromkeys(("awq", "awq_marlin", "auto_awq"), _awq),
    "bitsandbytes": _bitsandbytes,
    **dict.fromkeys(("fp8", "deepseek_v4_fp8"), _fp8),
    **dict.fromkeys(("mxfp4", "gpt_oss_mxfp4"), _mxfp4),
    **dict.fromkeys(
        ("modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "mxfp8"), modelopt
    ),
    **dict.fromkeys(
        ("auto-round", "auto_round", "autoround", "intel/auto-round", "inc"), _autoround
    ),
    "torchao": _torchao,
    "hqq": _hqq,
    "quark": quark,
    "compressed-tensors": compressed,
}
