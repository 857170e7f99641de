"""In what a checkpoint is stored: the method of the catalogue, bits and group size, from config.json alone.

The fields are those that vLLM 0.32 reads (vllm/model_executor/layers/quantization: auto_awq.py, auto_gptq.py,
fp8.py, modelopt.py, inc/inc.py, quark/quark.py, mxfp4.py) and the schemes of compressed-tensors 0.17
(compressed_tensors/quantization/quant_scheme.py). A config is untrusted: whatever is of another type is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quantui.domain.checkpoint_facts import quantization_method, text_config
from quantui.domain.methods import methods

_Fields = Mapping[str, Any]


class CheckpointFormat(NamedTuple):
    """How the linear layers are stored.

    ``method`` is the catalogue's name, "" when the catalogue has none for it; ``bits`` those of a weight
    and ``activation_bits`` of what is multiplied with it, None when unknown (16: not quantized);
    ``group_size`` in weights, None for one scale a channel, a tensor or a block; ``text`` says it in words.
    """

    method: str
    bits: int | None
    group_size: int | None
    text: str
    quant_method: str = ""
    activation_bits: int | None = None
    symmetric: bool | None = None


def classify_quantization(config: _Fields) -> CheckpointFormat | None:
    """What the checkpoint of ``config`` (its config.json) is stored in; None when it is not quantized.

    Never raises: a format that is not known comes back with ``method`` "" and its own name in ``text``.
    """
    stored = _quantization_config(config)
    name = quantization_method(config)
    if stored is None or name is None:
        return None
    read = _READERS.get(name)
    found = read(stored) if read else _plain(name, stored)
    return found._replace(quant_method=name[:40], text=found.text[:160])


def _quantization_config(config: _Fields) -> _Fields | None:
    for part in (config, text_config(config)):
        for key in ("quantization_config", "compression_config"):
            if isinstance(stored := part.get(key), Mapping):
                return stored
    return None


def _plain(name: str, stored: _Fields) -> CheckpointFormat:
    """A format of which only the usual fields are known."""
    bits, group = _number(stored, "bits", "w_bit", "nbits"), _group(stored)
    known = name if name in methods() else ""
    return CheckpointFormat(known, bits, group, _text(name, bits, group))


def _gptq(stored: _Fields) -> CheckpointFormat:
    bits, group = _number(stored, "bits"), _group(stored)
    symmetric = _flag(stored, "sym")
    by = ", made by AutoRound" if stored.get("autoround_version") else ""
    order = ", act order" if stored.get("desc_act") is True else ""
    text = _text("GPTQ", bits, group) + ("" if symmetric is not False else ", asymmetric")
    return CheckpointFormat(
        "gptq", bits, group, text + order + by, activation_bits=16, symmetric=symmetric
    )


def _awq(stored: _Fields) -> CheckpointFormat:
    bits, group = _number(stored, "bits", "w_bit"), _group(stored)
    zero_point = _flag(stored, "zero_point")
    symmetric = None if zero_point is None else not zero_point
    text = _text("AWQ", bits, group)
    return CheckpointFormat("awq", bits, group, text, activation_bits=16, symmetric=symmetric)


def _bitsandbytes(stored: _Fields) -> CheckpointFormat:
    if stored.get("load_in_8bit") is True or stored.get("_load_in_8bit") is True:
        text = "bitsandbytes 8 bit (LLM.int8)"
        return CheckpointFormat("bitsandbytes_8bit", 8, None, text, activation_bits=16)
    kind = str(stored.get("bnb_4bit_quant_type") or "nf4").upper()
    double = ", double quantization" if stored.get("bnb_4bit_use_double_quant") is True else ""
    skipped = stored.get("llm_int8_skip_modules")
    kept = f", {len(skipped)} modules in 16 bit" if isinstance(skipped, list) and skipped else ""
    text = f"bitsandbytes {kind} 4 bit{double}{kept}"
    return CheckpointFormat("bitsandbytes", 4, None, text, activation_bits=16)


def _fp8(stored: _Fields) -> CheckpointFormat:
    block = stored.get("weight_block_size")
    if isinstance(block, list) and block:
        size = "x".join(str(side) for side in block)
        text = f"FP8, a scale for each block of {size}"
        return CheckpointFormat("fp8_block", 8, None, text, activation_bits=8, symmetric=True)
    static = stored.get("activation_scheme") == "static"
    method = "fp8_static" if static else "fp8_dynamic"
    scales = "static" if static else "dynamic"
    text = f"FP8, {scales} scales for activations"
    return CheckpointFormat(method, 8, None, text, activation_bits=8, symmetric=True)


def _modelopt(stored: _Fields) -> CheckpointFormat:
    nested = stored.get("quantization")
    fields = nested if isinstance(nested, Mapping) else stored
    algorithm = str(fields.get("quant_algo") or "").upper()
    group = _group(fields)
    if "NVFP4" in algorithm:
        bits = 16 if "W4A16" in algorithm else 4
        text = _text(f"ModelOpt {algorithm}", 4, group or 16)
        return CheckpointFormat("nvfp4", 4, group or 16, text, activation_bits=bits)
    if algorithm == "MXFP8":
        return CheckpointFormat("mxfp8", 8, 32, "ModelOpt MXFP8", activation_bits=8)
    if algorithm.startswith("FP8"):
        text = f"ModelOpt {algorithm}"
        return CheckpointFormat("modelopt", 8, group, text, activation_bits=8, symmetric=True)
    return CheckpointFormat("modelopt", None, group, f"ModelOpt {algorithm or 'format'}")


def _autoround(stored: _Fields) -> CheckpointFormat:
    bits, group = _number(stored, "bits"), _group(stored)
    packing = str(stored.get("packing_format") or "").removeprefix("auto_round:")
    inside = f" in the layout of {packing}" if packing else ""
    text = _text("AutoRound", bits, group) + inside
    activations = _number(stored, "act_bits") or 16
    return CheckpointFormat(
        "autoround",
        bits,
        group,
        text,
        activation_bits=activations,
        symmetric=_flag(stored, "sym"),
    )


def _mxfp4(stored: _Fields) -> CheckpointFormat:
    del stored
    return CheckpointFormat("mxfp4", 4, 32, "MXFP4 experts, the rest 16 bit", activation_bits=16)


def _torchao(stored: _Fields) -> CheckpointFormat:
    kind = stored.get("quant_type")
    if isinstance(kind, Mapping):
        kind = next((part.get("_type") for part in kind.values() if isinstance(part, Mapping)), "")
    name = str(kind or "")
    squeezed = name.lower().replace("_", "")
    bits = next((size for size in (4, 8) if f"int{size}weight" in squeezed), None)
    bits = bits or (8 if "float8" in squeezed else None)
    return CheckpointFormat("torchao", bits, _group(stored), f"torchao {name}".strip())


def _quark(stored: _Fields) -> CheckpointFormat:
    whole = stored.get("global_quant_config")
    weight = whole.get("weight") if isinstance(whole, Mapping) else None
    weight = next(iter(weight), None) if isinstance(weight, list) else weight
    dtype = str(weight.get("dtype") or "") if isinstance(weight, Mapping) else ""
    bits = next((size for size in (4, 8) if str(size) in dtype.partition("_")[0]), None)
    group = _group(weight) if isinstance(weight, Mapping) else None
    return CheckpointFormat("quark", bits, group, _text(f"Quark {dtype}".strip(), None, group))


def _compressed(stored: _Fields) -> CheckpointFormat:
    """compressed-tensors: each group names its layers' weights and activations."""
    groups = stored.get("config_groups")
    listed = groups.values() if isinstance(groups, Mapping) else ()
    schemes = [
        g for g in listed if isinstance(g, Mapping) and isinstance(g.get("weights"), Mapping)
    ]
    if not schemes:
        return CheckpointFormat("", None, None, "compressed-tensors")
    # Of several schemes the one with the fewest bits is what most of the weights are stored in.
    scheme = min(schemes, key=lambda each: _number(each["weights"], "num_bits") or 16)
    weights: _Fields = scheme["weights"]
    found = scheme.get("input_activations")
    activations: _Fields | None = found if isinstance(found, Mapping) else None
    bits, group = _number(weights, "num_bits"), _group(weights)
    activation_bits = 16 if activations is None else _number(activations, "num_bits")
    method = _compressed_method(stored, scheme, weights, activations, bits, group)
    kind = "FP" if weights.get("type") == "float" else "INT"
    a_kind = "" if activations is None else "FP" if activations.get("type") == "float" else "INT"
    per = weights.get("strategy")
    scales = f", group {group}" if group else f", {per}" if isinstance(per, str) else ""
    rotated = ", rotated" if stored.get("transform_config") else ""
    mixed = ", mixed schemes" if len(schemes) > 1 else ""
    text = (
        f"compressed-tensors {kind}{bits or '?'} weights, "
        f"{a_kind}{activation_bits or '?'}{'' if a_kind else ' bit'} activations{scales}{rotated}{mixed}"
    )
    symmetric = _flag(weights, "symmetric")
    return CheckpointFormat(
        method, bits, group, text, activation_bits=activation_bits, symmetric=symmetric
    )


def _compressed_method(
    stored: _Fields,
    scheme: _Fields,
    weights: _Fields,
    activations: _Fields | None,
    bits: int | None,
    group: int | None,
) -> str:
    rotated = bool(stored.get("transform_config"))
    form = str(scheme.get("format") or stored.get("format") or "")
    if bits is None:
        return ""
    if weights.get("type") == "float":
        if bits == 4:
            return "nvfp4" if "nvfp4" in form or group == 16 else "mxfp4"
        if "mxfp8" in form or (bits == 8 and group == 32):
            return "mxfp8"
        if activations is None:
            return "w8a16"
        if weights.get("strategy") == "block":
            return "fp8_block"
        return "fp8_static" if activations.get("dynamic") is False else "fp8_dynamic"
    if activations is None:
        if bits == 8:
            return "w8a16"
        return "rotations_w4a16" if rotated else "w4a16"
    if bits == 4:
        return "w4a8"
    return "rotations_w8a8" if rotated else "int8_w8a8"


_READERS: dict[str, Callable[[_Fields], CheckpointFormat]] = {
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "auto_gptq": _gptq,
    "awq": _awq,
    "awq_marlin": _awq,
    "auto_awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "deepseek_v4_fp8": _fp8,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mxfp8": _modelopt,
    "modelopt_mixed": _modelopt,
    "auto-round": _autoround,
    "auto_round": _autoround,
    "intel/auto-round": _autoround,
    "inc": _autoround,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "torchao": _torchao,
    "quark": _quark,
    "compressed-tensors": _compressed,
}


def _text(name: str, bits: int | None, group: int | None) -> str:
    size = f" {bits} bit" if bits else ""
    return f"{name}{size}{f', group {group}' if group else ''}"


def _group(stored: _Fields) -> int | None:
    # -1 stands for one scale a channel (auto_gptq, auto-round).
    return _number(stored, "group_size", "q_group_size")


def _number(stored: _Fields, *keys: str) -> int | None:
    for key in keys:
        value = stored.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
    return None


def _flag(stored: _Fields, key: str) -> bool | None:
    value = stored.get(key)
    return value if isinstance(value, bool) else None
