"""Typed reading of a machine description: a wrong type is refused by the field's name."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Iterable

_CAPABILITY = re.compile(r"(\d{1,3})\.(\d{1,3})", re.ASCII)


class Fields:
    """One JSON object of a machine description, and where in the document it stands.

    Every getter returns None for an absent key and for ``null``: both mean unknown. Errors are
    :class:`QuantuiError` ``hardware.wrong-type`` or ``hardware.unknown-key`` that name the field.
    """

    def __init__(self, data: object, where: str = "") -> None:
        if not isinstance(data, dict):
            raise _wrong(where or "the document", data, "an object")
        self._data: dict[str, Any] = data
        self._where = where

    def allow(self, names: Iterable[str]) -> None:
        """Refuse a key that is not in ``names``: a typo would otherwise read as "unknown"."""
        known = sorted(names)
        for key in self._data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                raise QuantuiError(
                    code="hardware.unknown-key",
                    what=f"The machine description has an unknown field {self._path(str(key))}.",
                    why="Fields that quantui does not know are refused, so that a typo is noticed.",
                    fix=f"Did you mean {near[0]}?"
                    if near
                    else f"Known fields: {', '.join(known)}.",
                )

    def text(self, key: str) -> str | None:
        """A string."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, str):
            raise _wrong(self._path(key), value, "a string")
        return value

    def count(self, key: str) -> int | None:
        """A whole number of at least 0: bytes, an index, a number of cores, a PID."""
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise _wrong(self._path(key), value, "a whole number of at least 0")
        return value

    def number(self, key: str) -> float | None:
        """A finite number."""
        value = self._data.get(key)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise _wrong(self._path(key), value, "a finite number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, bool):
            raise _wrong(self._path(key), value, "true or false")
        return value

    def capability(self, key: str) -> tuple[int, int] | None:
        """A CUDA compute capability, written "8.0"; a JSON number would read 12.10 as 12.1."""
        value = self._data.get(key)
        if value is None:
            return None
        match = _CAPABILITY.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise _wrong(self._path(key), value, 'a compute capability as a string, "8.0"')
        return int(match[1]), int(match[2])

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings."""
        items = self._items(key)
        if items is None:
            return None
        for position, item in enumerate(items):
            if not isinstance(item, str):
                raise _wrong(f"{self._path(key)}[{position}]", item, "a string")
        return tuple(items)

    def nested(self, key: str) -> Fields | None:
        """An object."""
        value = self._data.get(key)
        return None if value is None else Fields(value, self._path(key))

    def objects(self, key: str) -> tuple[Fields, ...] | None:
        """A list of objects."""
        items = self._items(key)
        if items is None:
            return None
        return tuple(Fields(item, f"{self._path(key)}[{i}]") for i, item in enumerate(items))

    def needed(self, key: str) -> str:
        """A string that must be there."""
        value = self.text(key)
        if value is None:
            raise _wrong(self._path(key), None, "a string")
        return value

    def _items(self, key: str) -> list[Any] | None:
        value = self._data.get(key)
        if value is not None and not isinstance(value, list):
            raise _wrong(self._path(key), value, "a list")
        return value

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key


def _wrong(path: str, value: object, wanted: str) -> QuantuiError:
    shown = "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
    return QuantuiError(
        code="hardware.wrong-type",
        what=f"In the machine description, {path} is not {wanted}.",
        why=f"It is {shown}.",
        fix=f"Write {wanted}, or leave the field out if it is unknown.",
    )
