"""Collecting the weights of a model that exists only as a config: one call a tensor, all its layers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantui.domain.weights.weight_groups import WeightGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.weights.weight_groups import WeightRole, WeightSplit, WeightStage

QUANTIZABLE = frozenset({"linear", "expert"})


@dataclass
class Parts:
    """The groups so far. Names are those of the checkpoint, ``{}`` for the layer's index."""

    groups: list[WeightGroup] = field(default_factory=list)
    layer: str = "model.layers.{}."

    def add(
        self,
        role: WeightRole,
        name: str,
        rows: int,
        columns: int = 1,
        *,
        split: WeightSplit = "none",
        layers: Sequence[int] | None = None,
        each: int = 1,
        stage: WeightStage = "layer",
        heads: int = 0,
        quantized: bool | None = None,
    ) -> None:
        """``each`` tensors of ``rows x columns`` in every one of ``layers``; in the whole model with None."""
        count = each * (1 if layers is None else len(layers))
        if rows <= 0 or columns <= 0 or count <= 0:
            return
        self.groups.append(
            WeightGroup(
                role,
                name if layers is None else self.layer + name,
                rows * columns * count,
                rows,
                columns,
                count,
                split,
                stage,
                tuple(layers or ()),
                heads,
                role in QUANTIZABLE if quantized is None else quantized,
            )
        )

    def linear(
        self,
        name: str,
        rows: int,
        columns: int,
        layers: Sequence[int],
        split: WeightSplit,
        *,
        bias: bool = False,
        heads: int = 0,
        each: int = 1,
    ) -> None:
        """A linear layer; its bias is split as its rows are."""
        self.add("linear", name, rows, columns, split=split, layers=layers, heads=heads, each=each)
        if bias:
            kept: WeightSplit = "none" if split == "row" else split
            self.add("bias", name, rows, split=kept, layers=layers, heads=heads, each=each)

    def norm(self, name: str, width: int, layers: Sequence[int] | None, vectors: int = 1) -> None:
        """A norm of ``vectors`` vectors: 1 a weight, 2 a weight and a bias."""
        stage: WeightStage = "last" if layers is None else "layer"
        self.add("norm", name, width, each=vectors, layers=layers, stage=stage)
