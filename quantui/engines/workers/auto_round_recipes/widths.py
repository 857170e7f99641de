"""Which layers get more bits than the rest: those whose rounding moves the model's answers most.

AutoRound's own AutoScheme chooses by an estimate of the loss and takes its data from the Hub; here the
move is measured, on the calibration data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantui_wire import progress

from auto_round_recipes.asking import group_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import torch
    from quantizing.job import Recipe

SHARE = 0.25
"""The share of the quantized weights that may be wider than 4 bit: 4.5 bits a weight on average beside 6,
and 5 beside 8."""

TOGETHER = (
    ("q_proj", "k_proj", "v_proj"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
)
"""Layers that vLLM joins to one, which must have one width (vLLM 0.32, packed_modules_mapping of its models)."""


@dataclass(frozen=True)
class Chosen:
    """``names``: the layers that are wider. ``share``: of the quantized weights. ``measured``: for every
    unit, the divergence in nats a token that rounding it alone to 4 bit makes.
    """

    names: list[str]
    share: float
    measured: dict[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What the recipe tells of it."""
        return {
            "wider_layers": self.names,
            "wider_share": round(self.share, 4),
            "sensitivity": {name: float(f"{kl:.3g}") for name, kl in self.measured.items()},
        }


def choose(
    model: torch.nn.Module,
    layers: Mapping[str, Any],
    left: Collection[str],
    recipe: Recipe,
    rows: Sequence[Sequence[int]],
) -> Chosen:
    """Round each unit of ``layers`` alone to the recipe's bits, ask the model ``rows``, and choose.

    Units with the most divergence a weight come first, as long as all of them hold at most ``SHARE`` of the
    weights. A unit is what a server joins into one layer. The answers of all rows are held in RAM: four
    bytes a token and of the vocabulary, twice.
    """
    units = [
        names
        for names in united(name for name in layers if name not in left)
        if not any(part in names[0].split(".") for part in ("experts",))
    ]
    sizes = {names[0]: sum(layers[n].weight.numel() for n in names) for names in units}
    every = quantized_values(model, left)
    before = answers(model, rows)
    measured: dict[str, float] = {}
    for done, names in enumerate(units):
        progress(done, len(units), unit="layers", message="sensitivity")
        kept = {name: layers[name].weight.data for name in names}
        for name, weight in kept.items():
            layers[name].weight.data = rounded(weight, recipe.bits, group_size(recipe))
        measured[names[0]] = divergence(before, answers(model, rows))
        for name, weight in kept.items():
            layers[name].weight.data = weight
    progress(len(units), len(units), unit="layers", message="sensitivity")
    wider, taken = [], 0
    for names in sorted(units, key=lambda one: -measured[one[0]] / sizes[one[0]]):
        if taken + sizes[names[0]] <= SHARE * every:
            wider += names
            taken += sizes[names[0]]
    return Chosen([name for name in layers if name in set(wider)], taken / every, measured)


def quantized_values(model: torch.nn.Module, left: Collection[str]) -> int:
    """Values in the matrices of ``model`` but embeddings and what is ``left``: experts fused into one too."""
    import torch

    kept = {
        id(module.weight)
        for name, module in model.named_modules()
        if name in left or isinstance(module, torch.nn.Embedding)
    }
    return sum(one.numel() for one in model.parameters() if one.dim() > 1 and id(one) not in kept)


def united(names: Iterator[str]) -> list[list[str]]:
    """``names`` in units of those that must have one width, in order."""
    units: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        parent, _, last = name.rpartition(".")
        group = next((one for one in TOGETHER if last in one), (last,))
        units.setdefault((parent, *group), []).append(name)
    return list(units.values())


def rounded(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """``weight`` [outputs, inputs] rounded to the nearest of ``bits``, symmetric, a scale a group."""
    inputs = weight.shape[-1]
    size = inputs if group == -1 or inputs % group else group
    parts = weight.float().reshape(-1, size)
    top = 2 ** (bits - 1) - 1
    scale = parts.abs().amax(-1, keepdim=True).clamp(min=1e-9) / top
    near = (parts / scale).round().clamp(-top - 1, top) * scale
    return near.reshape(weight.shape).to(weight.dtype)


def answers(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Log-probabilities after every token of each row, float32 [tokens, vocabulary]."""
    import torch

    found = []
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row]), use_cache=False).logits
            found.append(torch.log_softmax(logits[0].float(), dim=-1))
    return found


def divergence(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """KL of ``before`` against ``after``, nats a token."""
    total = sum(
        float((one.exp() * (one - other)).sum()) for one, other in zip(before, after, strict=True)
    )
    return max(0.0, total / sum(map(len, before)))
