"""Which methods of the catalogue a checkpoint's format can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.methods import methods

if TYPE_CHECKING:
    from quantui.domain.methods import Method
    from quantui.domain.model_shape import ModelShape


def stored_candidates(stored_as: str, shape: ModelShape | None = None) -> tuple[Method, ...]:
    """The methods a checkpoint that says ``stored_as`` can be in, the likeliest first; empty: none is known.

    ``stored_as`` is a ``quant_method``, which several methods may share (the bits in ``shape`` tell those apart where
    they can), or a name of the catalogue.
    """
    known = methods()
    found = tuple(one for one in known.values() if one.stored and stored_as in one.vllm_names)
    if not found and stored_as in known and known[stored_as].stored:
        return (known[stored_as],)
    bits = shape.quantization_bits if shape else None
    return tuple(one for one in found if one.weight_bits == bits) or found
