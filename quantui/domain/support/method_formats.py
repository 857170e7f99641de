"""Which methods of the catalogue a checkpoint's format can be, and what its own fields rule out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.architecture.quantization_readers import read_quantization
from quantui.domain.methods import methods
from quantui.domain.support.method_findings import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.methods import Method, Version


def stored_candidates(stored_as: str, shape: ModelShape | None = None) -> tuple[Method, ...]:
    """The methods a checkpoint that says ``stored_as`` can be in, the likeliest first; empty: none is known.

    ``stored_as`` is a ``quant_method``, which several methods may share (``shape`` tells those apart where it knows
    the format or its bits), or a name of the catalogue.
    """
    known = methods()
    if shape is not None and shape.stored_method and stored_as == shape.quantization:
        return (known[shape.stored_method],) if shape.stored_method in known else ()
    found = tuple(one for one in known.values() if one.stored and stored_as in one.vllm_names)
    if not found and stored_as in known and known[stored_as].stored:
        return (known[stored_as],)
    bits = shape.quantization_bits if shape else None
    return tuple(one for one in found if one.weight_bits == bits) or found


def field_findings(
    config: Mapping[str, Any], *, on_cpu: bool, version: Version
) -> Iterator[Refused]:
    """What vLLM refuses of a checkpoint by the fields of its ``config`` (its config.json)."""
    stored = read_quantization(config)
    if stored is None:
        return
    bits = stored.bits
    if stored.format == "gptq":
        source = "vLLM 0.32, quantization/auto_gptq.py, TYPE_MAP."
        if stored.symmetric is False:
            yield _refuse("The checkpoint is asymmetric GPTQ: vLLM reads symmetric only.", source)
        elif bits is not None and bits not in ((4,) if on_cpu else (4, 8)):
            takes = "4 bit on the CPU" if on_cpu else "4 and 8 bit"
            yield _refuse(f"The checkpoint is GPTQ in {bits} bit: vLLM reads {takes}.", source)
        if stored.act_order and stored.group_size not in {None, -1} and version >= _STATIC_ORDER:
            yield _refuse(
                "The checkpoint is GPTQ with activation order (desc_act) and groups: vLLM no longer reads it.",
                "vLLM 0.32, quantization/utils/gptq_utils.py, normalize_and_validate_gptq_desc_act.",
            )
    if stored.format == "compressed-tensors" and stored.act_order and version >= _STATIC_ORDER:
        yield _refuse(
            "The checkpoint's groups are in the order of activations (actorder): vLLM no longer reads it.",
            "vLLM 0.32, compressed_tensors/compressed_tensors.py, _quantization_scheme_map_from_config.",
        )
    if stored.format == "awq" and bits is not None and bits != 4:
        yield _refuse(
            f"The checkpoint is AWQ in {bits} bit: vLLM reads 4 bit.",
            "vLLM 0.32, quantization/auto_awq.py, TYPE_MAP.",
        )


_STATIC_ORDER = (0, 32)
"""The vLLM that refuses activation order was seen in; an older one is not accused."""


def _refuse(text: str, why: str) -> Refused:
    return Refused(
        text, why=why, fix="Take another quantized copy of the model, or the 16-bit one."
    )
