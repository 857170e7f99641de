"""What a checkpoint was made from, as its record keeps it: enough to make it again once it is gone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_ADAPTERS = 100
_LONGEST_TEXT = 4096


@dataclass(frozen=True)
class Ingredient:
    """A model or an adapter that something was made from.

    ``ref`` is what the person wrote. A Hub source has its commit in ``revision``, a folder its place in ``path``.
    ``size``: bytes of its weights, None: unknown. ``weight``: of an adapter, by what its changes are multiplied.
    """

    ref: str
    revision: str | None = None
    path: str | None = None
    size: int | None = None
    weight: float = 1.0

    @property
    def on_hub(self) -> bool:
        """Whether it can be downloaded again."""
        return self.path is None

    @property
    def words(self) -> str:
        """``owner/llama @ 1a2b3c4d``, or the folder."""
        if self.path is not None:
            return self.path
        return f"{self.ref} @ {self.revision[:8]}" if self.revision else self.ref


@dataclass(frozen=True)
class MadeFrom:
    """The base and the adapters, and ``command``: the words after ``quantui`` that make it again."""

    base: Ingredient
    adapters: tuple[Ingredient, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def ingredients(self) -> tuple[Ingredient, ...]:
        """All of them, the base first."""
        return (self.base, *self.adapters)

    @property
    def words(self) -> tuple[str, ...]:
        """As :attr:`~quantui.domain.caches.items.CacheItem.made_from` has it."""
        told = [self.base.words]
        for adapter in self.adapters:
            times = "" if adapter.weight == 1 else f"{adapter.weight!r} x "
            told.append(f"adapter {times}{adapter.words}")
        return tuple(told)

    @property
    def short(self) -> str:
        """``llama + my-lora``: the last names."""
        return " + ".join(PurePath(one.ref).name or one.ref for one in self.ingredients)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "base": _told(self.base),
            "adapters": [{**_told(adapter), "weight": adapter.weight} for adapter in self.adapters],
            "command": list(self.command),
        }

    @classmethod
    def from_dict(cls, told: object) -> MadeFrom | None:
        """What :meth:`to_dict` gave; None for anything else: a record may be damaged, or older."""
        if not isinstance(told, dict):
            return None
        base = _read(told.get("base"))
        adapters, command = told.get("adapters"), told.get("command")
        if base is None or not isinstance(adapters, list) or not isinstance(command, list):
            return None
        read = [_read(adapter) for adapter in adapters[:_MOST_ADAPTERS]]
        return cls(
            base,
            tuple(adapter for adapter in read if adapter is not None),
            tuple(word for word in command if isinstance(word, str)),
        )


def _told(one: Ingredient) -> dict[str, Any]:
    return {"ref": one.ref, "revision": one.revision, "path": one.path, "size": one.size}


def _read(told: object) -> Ingredient | None:
    if not isinstance(told, dict):
        return None
    ref = _text(told, "ref")
    if not ref:
        return None
    size, weight = told.get("size"), told.get("weight", 1.0)
    return Ingredient(
        ref,
        _text(told, "revision") or None,
        _text(told, "path") or None,
        size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        float(weight) if isinstance(weight, int | float) and math.isfinite(weight) else 1.0,
    )


def _text(told: Mapping[Any, Any], name: str) -> str:
    value = told.get(name)
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""
