"""What is gathered while a plan is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streaming_merge.effects import Effect


@dataclass(frozen=True)
class SameValues:
    """Two tensors of an adapter that must hold the same values; ``transposed``: one's transpose."""

    adapter: int
    one: str
    other: str
    transposed: bool = False


@dataclass
class Draft:
    """What is gathered while a plan is made."""

    effects: dict[str, Effect] = field(default_factory=dict)
    consumed: list[str] = field(default_factory=list)
    same: list[SameValues] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    """A tensor that the base does not store -> the stored one that it is put behind."""
    dropped: set[str] = field(default_factory=set)
    """Tensors of the base that the result's class does not have."""
    copies: set[tuple[int, str]] = field(default_factory=set)
    """(adapter, its tensor) of what only repeats the base."""
