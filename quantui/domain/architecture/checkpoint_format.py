"""In what a checkpoint is stored: the method of the catalogue, bits and group size, from config.json alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from quantui.domain.architecture.quantization_readers import read_quantization
from quantui.domain.methods import methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.architecture.stored_quantization import StoredQuantization


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


def classify_quantization(config: Mapping[str, Any]) -> CheckpointFormat | None:
    """What the checkpoint of ``config`` (its config.json) is stored in; None when it is not quantized.

    Never raises: a format that is not known comes back with ``method`` "" and its own name in ``text``.
    """
    stored = read_quantization(config)
    if stored is None:
        return None
    return CheckpointFormat(
        _catalogue_name(stored),
        stored.bits,
        _whole_group(stored),
        _words(stored)[:160],
        stored.method[:40],
        stored.activation_bits,
        stored.symmetric,
    )


def _catalogue_name(stored: StoredQuantization) -> str:
    form = stored.format
    if form == "bitsandbytes":
        return "bitsandbytes_8bit" if stored.bits == 8 else "bitsandbytes"
    if form == "fp8":
        if stored.block is not None:
            return "fp8_block"
        return "fp8_static" if stored.static_activations else "fp8_dynamic"
    if form == "modelopt":
        if stored.micro == "mxfp8":
            return "mxfp8"
        return "nvfp4" if stored.micro == "nvfp4" else "modelopt"
    if form == "compressed-tensors":
        return _scheme_name(stored)
    if form in {"other", "hqq"}:
        return stored.method if stored.method in methods() else ""
    return form


def _scheme_name(stored: StoredQuantization) -> str:
    bits, active = stored.bits, stored.activation_bits != 16
    if bits is None:
        return ""
    if stored.micro:
        return stored.micro
    if not active:
        if bits == 8:
            return "w8a16"
        return "rotations_w4a16" if stored.rotated else "w4a16"
    if stored.floating:
        if stored.label == "block":
            return "fp8_block"
        return "fp8_static" if stored.static_activations else "fp8_dynamic"
    if bits == 4:
        return "w4a8"
    return "rotations_w8a8" if stored.rotated else "int8_w8a8"


def _words(stored: StoredQuantization) -> str:
    form, label = stored.format, stored.label
    if form == "gptq":
        parts = (
            _sized("GPTQ", stored),
            ", asymmetric" if stored.symmetric is False else "",
            ", act order" if stored.act_order else "",
            f", made by {label}" if label else "",
        )
        return "".join(parts)
    if form == "awq":
        return _sized("AWQ", stored)
    if form == "bitsandbytes":
        if stored.bits == 8:
            return "bitsandbytes 8 bit (LLM.int8)"
        double = ", double quantization" if stored.double_quantized else ""
        kept = f", {len(stored.skipped)} modules in 16 bit" if stored.skipped else ""
        return " ".join(filter(None, ("bitsandbytes", label.upper(), f"4 bit{double}{kept}")))
    if form == "fp8":
        if stored.block is not None:
            return f"FP8, a scale for each block of {stored.block[0]}x{stored.block[1]}"
        return f"FP8, {'static' if stored.static_activations else 'dynamic'} scales for activations"
    if form == "mxfp4":
        return "MXFP4 experts, the rest 16 bit"
    if form == "modelopt":
        name = f"ModelOpt {label or 'format'}" if stored.method.startswith("modelopt") else label
        return _sized(name, stored) if stored.bits == 4 else name
    if form == "autoround":
        return _sized("AutoRound", stored) + (f" in the layout of {label}" if label else "")
    if form == "torchao":
        return f"torchao {label}".strip()
    if form == "quark":
        return f"Quark {label}".strip() + _group_words(stored)
    if form == "compressed-tensors":
        return _scheme_words(stored)
    return _sized(stored.method, stored)


def _scheme_words(stored: StoredQuantization) -> str:
    if stored.activation_bits is None and stored.bits is None and not stored.label:
        return "compressed-tensors"
    kind = "FP" if stored.floating else "INT"
    if stored.activation_bits == 16:
        activations = "16 bit"
    else:
        activations = (
            f"{'FP' if stored.activation_floating else 'INT'}{stored.activation_bits or '?'}"
        )
    scales = _group_words(stored) or (f", {stored.label}" if stored.label else "")
    return (
        f"compressed-tensors {kind}{stored.bits or '?'} weights, {activations} activations{scales}"
        + (", rotated" if stored.rotated else "")
        + (", mixed schemes" if stored.schemes > 1 else "")
    )


def _sized(name: str, stored: StoredQuantization) -> str:
    return f"{name}{f' {stored.bits} bit' if stored.bits else ''}{_group_words(stored)}"


def _group_words(stored: StoredQuantization) -> str:
    size = _whole_group(stored)
    return f", group {size}" if size else ""


def _whole_group(stored: StoredQuantization) -> int | None:
    return stored.group_size if stored.group_size and stored.group_size > 0 else None
