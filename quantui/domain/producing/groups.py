"""Whether a model's layers divide into groups of a size, counted from its tensors or its config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.models import ModelSpec


def group_size_for(
    model: ModelSpec,
    wanted: int,
    offered: tuple[int, ...],
    ignore: Iterable[str],
    *,
    chosen: bool,
) -> tuple[int, tuple[str, ...]]:
    """``wanted``, or the largest smaller one of ``offered`` that divides every layer; and what to say of it.

    A size that a person has ``chosen`` is not replaced: QuantuiError ``quantize.group-size`` names a layer, its
    size and the sizes that divide all.
    """
    layers = linear_inputs(model, ignore)
    odd = next((name for name, inputs in layers.items() if not _divides(wanted, inputs)), None)
    if odd is None:
        return wanted, ()
    fits = tuple(
        size for size in offered if all(_divides(size, inputs) for inputs in layers.values())
    )
    smaller = max((size for size in fits if 0 < size < wanted), default=None)
    if smaller is None and -1 in fits:
        smaller = -1
    text = f"{odd} has {layers[odd]} inputs, which {wanted} does not divide"
    if chosen or smaller is None:
        sizes = ", ".join(map(str, fits))
        raise QuantuiError(
            "quantize.group-size",
            f"Groups of {wanted} do not divide every layer of {model.ref}.",
            f"{text}.",
            (f"Take a group size that divides all: {sizes}. " if sizes else "")
            + "A layer named in quantization.ignore stays in 16 bit and is not asked.",
        )
    said = "a scale a row" if smaller == -1 else f"groups of {smaller}"
    return smaller, (f"{text}: {said} instead of groups of {wanted}.",)


def linear_inputs(model: ModelSpec, ignore: Iterable[str]) -> dict[str, int]:
    """Inputs of each kind of linear layer that would be quantized, by the first such layer's name.

    Empty where the model's layers cannot be counted.
    """
    ignored = tuple(ignore)
    found: dict[str, int] = {}
    for group in weight_census(model.config, model.tensors) or ():
        if group.role not in ("linear", "expert") or group.columns < 2 or not group.exact:
            continue
        first = str(group.layers[0]) if group.layers else "0"
        name = group.name.replace("{}", first, 1).replace("{}", "0")
        if not any(_names(one, name) for one in ignored):
            found[name] = group.columns
    return found


def _divides(size: int, inputs: int) -> bool:
    return size == -1 or inputs % size == 0


def _names(ignored: str, module: str) -> bool:
    """Whether an entry of ``ignore`` means the module: its name, the end of it, or a pattern after ``re:``."""
    if ignored.startswith("re:"):
        try:
            return re.match(ignored.removeprefix("re:"), module) is not None
        except re.error:
            return False
    return module == ignored or module.endswith(f".{ignored}")
