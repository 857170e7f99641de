"""A tensor without values that knows of which regions of stored tensors it is made.

transformers' conversion operations run on it as on a tensor: stacking, concatenating, chunking and
transposing move regions, and whatever else an operation asks for fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Shape = tuple[int, ...]


class UnsupportedError(Exception):
    """What was made of the stored tensors is no arrangement of their regions."""


@dataclass(frozen=True)
class Patch:
    """One region, ``start`` and ``shape``, of the new tensor, and where its values are stored.

    ``axes``: for each axis of the new tensor the axis of ``source`` that lies along it; None for an
    axis of size 1 that the source lacks.
    """

    source: str
    source_start: Shape
    axes: tuple[int | None, ...]
    start: Shape
    shape: Shape

    def described(self) -> dict[str, Any]:
        """The region as ``describe_model.py`` writes it.

        Raises:
            UnsupportedError: Its axes are in an order that a transpose of the last two does not give.
        """
        added = next((i for i, axis in enumerate(self.axes) if axis is not None), len(self.axes))
        axes = list(self.axes[added:])
        dimensions = len(self.source_start)
        straight = list(range(dimensions - len(axes), dimensions))
        if axes not in (straight, straight[:-2] + straight[-2:][::-1]):
            raise UnsupportedError(f"the axes of {self.source} in the order {list(self.axes)}")
        return {
            "source": self.source,
            "source_start": list(self.source_start),
            "start": list(self.start),
            "shape": list(self.shape[added:]),
            "transposed": axes != straight,
        }


class Patchwork:
    """Stands for a tensor in torch's functions and methods that only rearrange."""

    def __init__(self, shape: Shape, patches: Iterable[Patch]) -> None:
        self.shape = tuple(shape)
        self.patches = tuple(patches)

    @classmethod
    def stored(cls, name: str, shape: Shape) -> Patchwork:
        """The whole of the stored tensor ``name``."""
        zeros = (0,) * len(shape)
        return cls(shape, [Patch(name, zeros, tuple(range(len(shape))), zeros, tuple(shape))])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:  # noqa: ANN401 - as torch's
        """The shape, or its size along ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    def __getitem__(self, key: object) -> Patchwork:
        if key is not Ellipsis:
            raise UnsupportedError("indexing")
        return self

    def to(self, *_: object, **__: object) -> Patchwork:
        """Itself: neither dtype nor device changes where values come from."""
        return self

    def contiguous(self) -> Patchwork:
        """Itself: it has no memory of its own."""
        return self

    def transpose(self, dim0: int, dim1: int) -> Patchwork:
        """The two axes exchanged."""

        def swapped(values: Sequence[Any]) -> tuple[Any, ...]:
            new = list(values)
            new[dim0], new[dim1] = new[dim1], new[dim0]
            return tuple(new)

        return Patchwork(
            swapped(self.shape),
            (
                replace(p, axes=swapped(p.axes), start=swapped(p.start), shape=swapped(p.shape))
                for p in self.patches
            ),
        )

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Patchwork, ...]:
        """At most ``chunks`` parts along ``dim``, of one size but for the last, as torch cuts."""
        size = self.shape[dim]
        step = max(1, math.ceil(size / chunks))
        return tuple(
            self._narrowed(dim, begin, min(begin + step, size)) for begin in range(0, size, step)
        )

    def squeeze(self) -> Patchwork:
        """Without its axes of size 1."""
        kept = [axis for axis, size in enumerate(self.shape) if size != 1]

        def picked(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[axis] for axis in kept)

        return Patchwork(
            picked(self.shape),
            (
                replace(p, axes=picked(p.axes), start=picked(p.start), shape=picked(p.shape))
                for p in self.patches
            ),
        )

    def _narrowed(self, dim: int, begin: int, end: int) -> Patchwork:
        dim %= self.ndim
        patches = []
        for patch in self.patches:
            low = max(patch.start[dim], begin)
            high = min(patch.start[dim] + patch.shape[dim], end)
            if low >= high:
                continue
            source_start, axis = patch.source_start, patch.axes[dim]
            if axis is not None:
                source_start = _set(source_start, axis, source_start[axis] + low - patch.start[dim])
            start, shape = _set(patch.start, dim, low - begin), _set(patch.shape, dim, high - low)
            patches.append(replace(patch, source_start=source_start, start=start, shape=shape))
        return Patchwork(_set(self.shape, dim, end - begin), patches)

    @staticmethod
    def cat(tensors: Sequence[Patchwork], dim: int = 0) -> Patchwork:
        """The tensors one after another along ``dim``; their other sizes must agree."""
        dim %= tensors[0].ndim
        patches: list[Patch] = []
        offset = 0
        for tensor in tensors:
            if _set(tensor.shape, dim, 0) != _set(tensors[0].shape, dim, 0):
                raise UnsupportedError(
                    f"shapes {tensor.shape} and {tensors[0].shape} in one tensor"
                )
            patches += (
                replace(p, start=_set(p.start, dim, p.start[dim] + offset)) for p in tensor.patches
            )
            offset += tensor.shape[dim]
        return Patchwork(_set(tensors[0].shape, dim, offset), patches)

    @staticmethod
    def stack(tensors: Sequence[Patchwork], dim: int = 0) -> Patchwork:
        """The tensors one after another along a new axis ``dim``."""
        dim %= tensors[0].ndim + 1

        def wider(tensor: Patchwork) -> Patchwork:
            def with_axis(values: Sequence[Any], new: object) -> tuple[Any, ...]:
                return (*values[:dim], new, *values[dim:])

            return Patchwork(
                with_axis(tensor.shape, 1),
                (
                    replace(
                        p,
                        axes=with_axis(p.axes, None),
                        start=with_axis(p.start, 0),
                        shape=with_axis(p.shape, 1),
                    )
                    for p in tensor.patches
                ),
            )

        return Patchwork.cat([wider(tensor) for tensor in tensors], dim)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the function gives
        """Called by torch in the place of ``function`` where an argument is a patchwork."""
        import torch

        own: Any = {
            torch.cat: cls.cat,
            torch.stack: cls.stack,
            torch.chunk: cls.chunk,
            torch.transpose: cls.transpose,
            torch.squeeze: cls.squeeze,
        }.get(function)
        if own is None:
            raise UnsupportedError(getattr(function, "__name__", str(function)))
        return own(*args, **(kwargs or {}))

    def described(self, shape: Shape) -> list[dict[str, Any]]:
        """Its regions, which cover a tensor of ``shape`` without gap or overlap.

        Raises:
            UnsupportedError: They do not, or one cannot be written down.
        """
        if self.shape != tuple(shape):
            raise UnsupportedError(f"shape {list(self.shape)} in the place of {list(shape)}")
        patches = sorted(self.patches, key=lambda patch: patch.start)
        if sum(math.prod(patch.shape) for patch in patches) != math.prod(shape):
            raise UnsupportedError("regions that leave a gap or overlap")
        open_: list[Patch] = []
        for patch in patches:
            if any(
                s + n > limit for s, n, limit in zip(patch.start, patch.shape, shape, strict=True)
            ):
                raise UnsupportedError("a region outside the tensor")
            open_ = [p for p in open_ if not p.shape or p.start[0] + p.shape[0] > patch.start[0]]
            if any(_overlap(patch, other) for other in open_):
                raise UnsupportedError("regions that overlap")
            open_.append(patch)
        return [patch.described() for patch in patches]


def _overlap(one: Patch, other: Patch) -> bool:
    return all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.start, one.shape, other.start, other.shape, strict=True)
    )


def _set(values: Shape, index: int, value: int) -> Shape:
    return (*values[:index], value, *values[index + 1 :])
