"""From an adapter's tensors to what happens to each stored tensor of the base."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import adapter_rules as rules

from streaming_merge.operations import Addition, Direction, Factor, Product, Rows
from streaming_merge.refusals import conflict, merged_not_finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streaming_merge.adapter_files import AdapterFile, Parts
    from streaming_merge.checkpoint import Tensor
    from streaming_merge.placement import Piece, Places


_LARGEST_FLOAT32 = 3.4028234e38


@dataclass
class Effect:
    """What the adapters do to one tensor; ``source`` is set where an adapter brings the tensor itself."""

    products: list[Product] = field(default_factory=list)
    direction: Direction | None = None
    additions: list[Addition] = field(default_factory=list)
    rows: Rows | None = None
    source: Tensor | None = None
    adapter: int | None = None


@dataclass(frozen=True)
class Pair:
    """The two halves of a LoRA on a parameter of ``shape``, as they are multiplied."""

    adapter: int
    left: str
    right: str
    halves: tuple[str, str]
    transposed: bool
    experts: int
    scale: float

    def factor(self, side: int, expert: int, start: int, stop: int) -> Factor:
        """The left (0) or right (1) factor, cut from ``start`` to ``stop``."""
        return Factor(
            self.adapter,
            (self.left, self.right)[side],
            self.halves[side],
            self.transposed,
            start,
            stop,
            expert,
            self.experts,
        )

    def product(self, row: int, expert: int, rows: range, columns: range) -> Product:
        """Rows and columns of the parameter's delta, added from ``row`` of a stored tensor on."""
        return Product(
            row,
            row + len(rows),
            self.factor(0, expert, rows.start, rows.stop),
            self.factor(1, expert, columns.start, columns.stop),
            self.scale,
        )

    def transposed_product(self, row: int, expert: int, rows: range, columns: range) -> Product:
        """The same where the stored tensor is the parameter's transpose: its rows are our columns."""
        left, right = (
            self.factor(1, expert, columns.start, columns.stop),
            self.factor(0, expert, rows.start, rows.stop),
        )
        flip = not self.transposed
        return Product(
            row,
            row + len(columns),
            Factor(**{**vars(left), "transposed": flip}),
            Factor(**{**vars(right), "transposed": flip}),
            self.scale,
        )


def pair_of(
    index: int,
    adapter: AdapterFile,
    names: tuple[str, str],
    module: str,
    *,
    rank: int,
    transposed: bool,
    experts: int = 1,
) -> Pair:
    """The pair (A, B) called ``names`` of ``module``, for a weight stored (out, in), or transposed."""
    scale = rules.scale(dict(adapter.config), module, rank) * adapter.weight
    if not abs(scale) <= _LARGEST_FLOAT32:
        raise merged_not_finite(module, "float32")
    a, b = names
    # (out, in) = B A, and (in, out) = A^T B^T.
    left, right, halves = (a, b, ("A", "B")) if transposed else (b, a, ("B", "A"))
    return Pair(index, left, right, halves, transposed, experts, scale)


def products_of(pair: Pair, piece: Piece) -> Iterator[Product]:
    """What ``pair`` adds to the stored tensor of ``piece``, a part of the pair's parameter.

    Raises:
        ValueError: The piece is cut in a way that whole rows of the stored tensor cannot say.
    """
    stacked = len(piece.start) == 3
    expert_0, row_0, column_0 = piece.start if stacked else (0, *piece.start)
    height, width = piece.shape[-2:]
    if piece.transposed:
        height, width = width, height
    experts = piece.shape[0] if len(piece.shape) == 3 else 1
    source_row, source_column = piece.source_start[-2:]
    stored_columns = height if piece.transposed else width
    if source_column or stored_columns != piece.tensor.columns:
        raise ValueError(f"{piece.tensor.name} is cut into columns")
    per_expert = piece.tensor.shape[-2] if len(piece.tensor.shape) == 3 else 0
    first = piece.source_start[0] * per_expert if per_expert else 0
    rows, columns = range(row_0, row_0 + height), range(column_0, column_0 + width)
    make = pair.transposed_product if piece.transposed else pair.product
    for expert in range(experts):
        row = first + expert * per_expert + source_row
        yield make(row, expert_0 + expert, rows, columns)


def effects_of(
    index: int, adapter: AdapterFile, parts: Parts, places: Places
) -> Iterator[tuple[str, Effect]]:
    """(stored tensor's name, effect) for everything the adapter does.

    Shapes have been checked before; see ``fitting``.
    """
    for module, found in parts.modules.items():
        yield from _module_effects(index, adapter, module, found, places)
    for name, key in parts.whole.items():
        tensor = adapter.tensors[key]
        yield stored_name(name, places), Effect(source=tensor, adapter=index)


def stored_name(parameter: str, places: Places) -> str:
    """The stored tensor that is the whole of ``parameter``; its own name where there is none."""
    module, _, leaf = parameter.rpartition(".")
    if parameter in places.tensors:
        return parameter
    renamed = f"{places.module(module) or module}.{leaf}"
    pieces = places.parameter(renamed)
    if pieces and len(pieces) == 1 and not pieces[0].transposed:
        return pieces[0].tensor.name
    return renamed


def _module_effects(
    index: int, adapter: AdapterFile, module: str, found: Mapping[str, str], places: Places
) -> Iterator[tuple[str, Effect]]:
    plain = module.replace(".base_layer", "")
    tensors = adapter.tensors
    if "A" in found and (target := target_parameter(adapter, module, places)) is not None:
        yield from _stacked_effects(index, adapter, target, found, places)
        return
    placed = places.module(plain) or plain
    weight = f"{placed}.weight"
    if "base.weight" in found:
        source = Effect(source=tensors[found["base.weight"]], adapter=index)
        yield stored_name(weight, places), source
    if "base.bias" in found:
        name = stored_name(f"{placed}.bias", places)
        yield name, Effect(source=tensors[found["base.bias"]], adapter=index)
    names, transposed = None, False
    if "A" in found:
        names, transposed = (found["A"], found["B"]), bool(places.stored_transposed(placed))
    elif "embedding_A" in found:
        names, transposed = (found["embedding_A"], found["embedding_B"]), True
    if names is not None:
        rank = tensors[names[0]].shape[0]
        pair = pair_of(index, adapter, names, plain, rank=rank, transposed=transposed)
        direction = None
        if "magnitude" in found:
            direction = Direction(index, found["magnitude"], by_row=not transposed)
        for piece in _pieces(weight, tensors.get(found.get("base.weight", "")), places):
            if direction is not None and not _is_whole(piece):
                raise ValueError(f"DoRA on {piece.tensor.name}, which transformers fuses")
            yield piece.tensor.name, Effect(list(products_of(pair, piece)), direction)
        if "B.bias" in found:
            addition = Addition(index, found["B.bias"], pair.scale)
            yield stored_name(f"{placed}.bias", places), Effect(additions=[addition])
    if "tokens" in found:
        indices = token_indices(adapter, plain)
        rows = Rows(index, found["tokens"], indices)
        yield stored_name(weight, places), Effect(rows=rows)


def _pieces(weight: str, own: Tensor | None, places: Places) -> list[Piece]:
    """Where ``weight`` lies; ``own``, which the adapter brings in its place, may have more rows."""
    pieces = places.parameter(weight) or []
    if own is None or len(pieces) != 1 or not _is_whole(pieces[0]):
        return pieces
    piece = pieces[0]
    return [replace(piece, tensor=replace(piece.tensor, shape=own.shape), shape=own.shape)]


def _is_whole(piece: Piece) -> bool:
    return piece.shape == piece.tensor.shape and not piece.transposed and not any(piece.start)


def target_parameter(adapter: AdapterFile, module: str, places: Places) -> str | None:
    """The parameter that a LoRA on ``module`` is for, where PEFT wrapped parameters and not a layer.

    PEFT wraps a module once for each of its targeted parameters, in the order in which the module made
    them: the first is the innermost, behind the most ``base_layer`` (PEFT, ``_inject_parameters``).
    """
    targets = adapter.config.get("target_parameters") or ()
    if not targets or places.description is None:
        return None
    plain = module.replace(".base_layer", "")
    placed = places.module(plain) or plain
    wrapped = [
        name
        for name in places.parameters_of(placed)
        if any(name == target or name.endswith(f".{target}") for target in targets)
    ]
    depth = module.count(".base_layer")
    return wrapped[len(wrapped) - 1 - depth] if depth < len(wrapped) else None


def _stacked_effects(
    index: int, adapter: AdapterFile, parameter: str, found: Mapping[str, str], places: Places
) -> Iterator[tuple[str, Effect]]:
    shape = places.shape(parameter)
    assert shape is not None
    experts = shape[0] if len(shape) == 3 else 1
    module = parameter.rpartition(".")[0]
    transposed = len(shape) == 3 and places.experts_transposed(module)
    rank = adapter.tensors[found["A"]].shape[0] // experts
    pair = pair_of(
        index, adapter, (found["A"], found["B"]), parameter,
        rank=rank, transposed=transposed, experts=experts,
    )  # fmt: skip
    for piece in places.parameter(parameter) or ():
        yield piece.tensor.name, Effect(list(products_of(pair, piece)))


def token_indices(adapter: AdapterFile, module: str) -> tuple[int, ...]:
    """Which rows ``trainable_token_indices`` names for ``module``; a plain list is the embedding's."""
    indices = adapter.config.get("trainable_token_indices") or ()
    if isinstance(indices, dict):
        for name, found in indices.items():
            if module == name or module.endswith(f".{name}"):
                return tuple(int(i) for i in found)
        return ()
    return tuple(int(i) for i in indices)


def combine(into: Effect, more: Effect, name: str, adapters: tuple[AdapterFile, ...]) -> None:
    """Add ``more`` to what happens to the tensor ``name``.

    Raises:
        WorkerError: ``merge.adapters-conflict``, ``merge.not-mergeable``.
    """
    if more.source is not None:
        if into.source is not None:
            raise conflict(f"both bring {name} whole", "Only one of them can be in its place.")
        into.source, into.adapter = more.source, more.adapter
    if more.direction is not None:
        if into.products:
            raise conflict(
                f"one is DoRA and both change {name}",
                "DoRA sets the norm of each row, which a second change would undo.",
            )
        into.direction = more.direction
    elif more.products and into.direction is not None:
        raise conflict(
            f"one is DoRA and both change {name}",
            "DoRA sets the norm of each row, which a second change would undo.",
        )
    if more.rows is not None:
        if into.rows is not None:
            raise conflict(f"both train tokens of {name}", "Only one row can be in its place.")
        into.rows = more.rows
    into.products += more.products
    into.additions += more.additions
    if into.rows is not None and into.products:
        assert into.rows is not None
        folder = adapters[into.rows.adapter].folder
        raise rules.not_mergeable(
            folder, f"{name} has both LoRA and trained tokens", "PEFT has no such layer."
        )
