"""Where a module's weight lies in the checkpoint, under the checkpoint's own names.

A module whose name, with ``.weight``, is a stored tensor is that tensor. Where transformers renames or fuses
while it loads (vision-language prefixes, experts), the description that ``describe_model.py`` makes with
the installed transformers decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streaming_merge.checkpoint import Tensor

CONV1D_TYPES = frozenset({"ctrl", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"})
"""Model types whose layers are transformers' Conv1D, which stores (in, out): a square weight of theirs
does not tell its orientation."""


class UnmappedError(Exception):
    """The description cannot say where a tensor lies; PEFT has to merge it."""


@dataclass(frozen=True)
class Piece:
    """A stored tensor, or rows of it, as part of a model's parameter.

    target[start : start + shape] = tensor[source_start : source_start + shape], all of the parameter's
    number of axes; ``transposed``: the last two are swapped in the stored tensor.
    """

    tensor: Tensor
    source_start: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    transposed: bool


class Places:
    """Finds the stored tensors of modules and parameters."""

    def __init__(
        self, tensors: Mapping[str, Tensor], model_type: str, description: Mapping[str, Any] | None
    ) -> None:
        self.tensors = tensors
        self.model_type = model_type
        self.description = description

    def module(self, name: str) -> str | None:
        """``name`` as the model has it; None: it has no such module."""
        if self.description is None:
            return name if self._stored(name) is not None else None
        renamed = self.description["renamed"].get(name)
        if renamed is None and self._stored(name) is not None:
            return name
        return None if renamed is None else str(renamed)

    def parameter(self, name: str) -> list[Piece] | None:
        """The pieces of the parameter ``name`` (``model.layers.0.mlp.down_proj.weight``).

        Raises:
            UnmappedError: It is made of stored tensors in a way that pieces cannot say.
        """
        if (exact := self.tensors.get(name)) is not None:
            zeros = (0,) * len(exact.shape)
            return [Piece(exact, zeros, zeros, exact.shape, transposed=False)]
        if self.description is None:
            return None
        if (same := self.description["shared"].get(name)) is not None:
            # Not stored for itself. Under its own name, so that it can become a tensor of its own.
            pieces = self.parameter(same) or []
            return [replace(piece, tensor=replace(piece.tensor, name=name)) for piece in pieces]
        found = self.description["parameters"].get(name)
        if found is None:
            return None
        if "unmapped" in found:
            raise UnmappedError(f"{name}: {found['unmapped']}")
        return [
            Piece(
                self.tensors[piece["source"]],
                tuple(piece["source_start"]),
                tuple(piece["start"]),
                tuple(piece["shape"]),
                piece["transposed"],
            )
            for piece in found["pieces"]
        ]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of the parameter ``name``; None: there is none."""
        if (exact := self.tensors.get(name)) is not None:
            return exact.shape
        if self.description is None:
            return None
        name = self.description["shared"].get(name, name)
        found = self.description["parameters"].get(name)
        return None if found is None else tuple(found["shape"])

    def stored_transposed(self, module: str) -> bool | None:
        """Whether ``module``'s weight is (in, out); None: its class is not known without a description."""
        if self.description is not None and module in self.description["modules"]:
            return bool(self.description["modules"][module]["class"] == "Conv1D")
        return None if self.model_type in CONV1D_TYPES else False

    def experts_transposed(self, module: str) -> bool:
        """Whether stacked experts of ``module`` are (experts, in, out), as the module itself says."""
        assert self.description is not None
        return bool(self.description["modules"][module]["is_transposed"])

    def parameters_of(self, module: str) -> list[str]:
        """The parameters that ``module`` holds itself, in the order in which it made them."""
        assert self.description is not None
        return [
            name for name in self.description["parameters"] if name.rpartition(".")[0] == module
        ]

    def modules(self) -> set[str]:
        """Every module that holds a matrix called weight."""
        if self.description is not None:
            parameters = self.description["parameters"].items()
            return {
                name.removesuffix(".weight")
                for name, found in parameters
                if name.endswith(".weight") and len(found["shape"]) == 2
            }
        return {
            name.removesuffix(".weight")
            for name, tensor in self.tensors.items()
            if name.endswith(".weight") and len(tensor.shape) == 2
        }

    def _stored(self, module: str) -> Tensor | None:
        return self.tensors.get(f"{module}.weight")
