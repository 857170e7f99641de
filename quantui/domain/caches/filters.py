"""The language that picks and sorts what takes the disk: ``size>10GB used>30d kind=merged llama``. Pure."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.words import area_of
from quantui.domain.errors import QuantuiError
from quantui.domain.quantities import age, data_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
_TERM = re.compile(r"([^<>=!~]*?)(>=|<=|!=|==|>|<|=|~)(.*)", re.DOTALL)

_NUMBER, _TEXT, _AGE = ">, <, >=, <= or =", "=, != or ~ (contains)", ">, <, >= or <="
KEYS: dict[str, tuple[str, str]] = {
    "size": (_NUMBER, "a size on disk, as size>10GB"),
    "frees": (_NUMBER, "what deleting it frees, as frees>1GiB"),
    "used": (_AGE, "how long it was not used, as used>30d (h, d, w, m, y), or used=unknown"),
    "made": (_AGE, "how long ago it was made, as made<2w (h, d, w, m, y), or made=unknown"),
    "kind": (_TEXT, f"one kind or several, as kind=merged,quantized: {', '.join(Kind)}"),
    "name": (_TEXT, "a name or a part of it, as name~llama"),
    "profile": (_TEXT, "a profile's file, or none or any, as profile=none"),
    "busy": ("= or !=", "whether a process uses it, as busy=no"),
    "area": (_TEXT, "a place, as area=artifacts"),
    "root": (_TEXT, "the folder that it lies in, as root~/data"),
    "files": (_NUMBER, "a number of files, as files>1000"),
}
"""Key -> (its operators, what it takes): the words of every message and of ``--help``."""

SORTS: dict[str, tuple[bool, str]] = {
    "size": (True, "largest first"),
    "frees": (True, "what frees most first"),
    "used": (True, "longest unused first"),
    "made": (True, "oldest first"),
    "name": (False, "from a to z"),
    "kind": (False, "by kind, then largest first"),
}
"""Order -> (whether it descends of itself, what it then shows first)."""

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda left, right: left > right,
    "<": lambda left, right: left < right,
    ">=": lambda left, right: left >= right,
    "<=": lambda left, right: left <= right,
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
}


@dataclass(frozen=True)
class Term:
    """One word of a filter: ``key`` of :data:`KEYS`, an operator, and the value as text or number."""

    word: str
    key: str
    op: str
    value: str | float

    def matches(self, item: CacheItem, now: float) -> bool:
        """Whether it holds of ``item``; what is unknown is neither more nor less than anything."""
        if self.key in ("used", "made"):
            at = item.used_at if self.key == "used" else item.made_at
            if isinstance(self.value, str):
                return (at is None) == (self.op == "=")
            return at is not None and _NUMBERS[self.op](max(0.0, now - at), self.value)
        if isinstance(self.value, float):
            return _NUMBERS[self.op](_figure(item, self.key), self.value)
        if self.op == "!=":
            return not self._names(item, "=")
        return self._names(item, self.op)

    def _names(self, item: CacheItem, op: str) -> bool:
        wanted = str(self.value).casefold()
        if self.key == "kind":
            each = [part.strip() for part in wanted.split(",") if part.strip()]
            return any(part in item.kind if op == "~" else part == item.kind for part in each)
        if self.key == "busy":
            return item.busy == (wanted == "yes")
        if self.key == "profile":
            if wanted in ("none", "any"):
                return bool(item.profiles) == (wanted == "any")
            names = [name.casefold() for name in item.profiles]
            if op == "~":
                return any(wanted in name for name in names)
            return any(wanted in (name, name.rpartition("/")[2]) for name in names)
        value = {"name": item.name, "area": area_of(item), "root": item.root}[self.key].casefold()
        return wanted in value if op == "~" else wanted == value


@dataclass(frozen=True)
class Filter:
    """Terms that must all hold; without any, everything matches."""

    terms: tuple[Term, ...] = ()

    def matches(self, item: CacheItem, now: float) -> bool:
        """Whether ``item`` is picked at ``now`` (seconds since the epoch)."""
        return all(term.matches(item, now) for term in self.terms)


def parse_filter(text: str) -> Filter:
    """The filter that ``text`` writes: words with spaces between them, ``"`` around what holds a space.

    A word without an operator is a part of a name. Raises QuantuiError ``cache.bad-filter``, which names the word and
    says what it takes; a word that is only half typed is one such.
    """
    return Filter(tuple(_term(word) for word in _WORD.findall(text)))


def _term(word: str) -> Term:
    parts = _TERM.fullmatch(word.replace('"', "")) if not word.startswith('"') else None
    if parts is None:
        return Term(word, "name", "~", word.replace('"', ""))
    key, op, value = parts[1].lower(), parts[2].replace("==", "="), parts[3].strip()
    if key not in KEYS:
        raise _unknown_key(word, key)
    ops = KEYS[key][0]
    if not value:
        raise _bad(word, f"it says nothing after the {op}")
    if key in ("used", "made"):
        if value.lower() in ("unknown", "never") and op in ("=", "!="):
            return Term(word, key, op, "unknown")
        if op in ("=", "!=", "~"):
            raise _bad(word, f"{key} goes with {ops}")
        return Term(word, key, op, _quantity(word, key, value))
    if key in ("size", "frees", "files"):
        if op == "~":
            raise _bad(word, f"{key} goes with {ops}")
        return Term(word, key, op, _quantity(word, key, value))
    if op not in ("=", "!=", "~") or (key == "busy" and op == "~"):
        raise _bad(word, f"{key} goes with {ops}")
    return Term(word, key, op, _checked(word, key, op, value))


def _checked(word: str, key: str, op: str, value: str) -> str:
    if key == "busy":
        answers = {"yes": "yes", "true": "yes", "1": "yes", "no": "no", "false": "no", "0": "no"}
        if value.lower() not in answers:
            raise _bad(word, "it takes yes or no")
        return answers[value.lower()]
    if key == "kind" and op != "~":
        parts = [part.strip() for part in value.lower().split(",") if part.strip()]
        if not parts:
            raise _bad(word, "it names no kind")
        for part in parts:
            if part not in list(Kind):
                near = difflib.get_close_matches(part, list(Kind), 1, 0.5)
                hint = f"; the nearest is {near[0]}" if near else ""
                raise _bad(word, f"{part[:40]} is no kind{hint}")
    return value


def _quantity(word: str, key: str, value: str) -> float:
    if key == "files":
        if value.isascii() and value.isdecimal():
            return float(value[:18])
        raise _bad(word, "it takes a whole number")
    try:
        return age(key, value) if key in ("used", "made") else float(data_size(key, value))
    except QuantuiError:
        what = "time" if key in ("used", "made") else "size"
        raise _bad(word, f"{value[:40]} is no {what}") from None


def _figure(item: CacheItem, key: str) -> float:
    return {"size": item.use.on_disk, "frees": item.use.frees, "files": item.files}[key]


def _bad(word: str, why: str) -> QuantuiError:
    key = (_TERM.fullmatch(word) or ["", ""])[1].lower()
    known = KEYS.get(key)
    fix = f"{key} is {known[1]}." if known else f"Known keys: {', '.join(KEYS)}."
    return QuantuiError(
        "cache.bad-filter", f"The filter's word {word[:60]!r} is not understood: {why}.", fix=fix
    )


def _unknown_key(word: str, key: str) -> QuantuiError:
    near = difflib.get_close_matches(key, KEYS, 1, 0.5)
    error = _bad(word, f"there is no key {key[:40]!r}" if key else "it begins with no key")
    if near:
        error.fix = f"Did you mean {near[0]}? That is {KEYS[near[0]][1]}."
    return error


@dataclass(frozen=True)
class Sort:
    """An order of things: ``key`` of :data:`SORTS`."""

    key: str = "size"
    descending: bool = True

    def __str__(self) -> str:
        """As it is written: ``size``, ``name:desc``."""
        if SORTS[self.key][0] == self.descending:
            return self.key
        return f"{self.key}:{'desc' if self.descending else 'asc'}"

    def apply(self, items: Iterable[CacheItem]) -> list[CacheItem]:
        """The things in this order. What is unknown comes last either way; equal ones go by name."""
        named = sorted(items, key=lambda item: (item.name.casefold(), item.path))
        if self.key == "name":
            return named[::-1] if self.descending else named
        if self.key == "kind":
            named.sort(key=lambda item: -item.use.on_disk)
            named.sort(key=lambda item: str(item.kind), reverse=self.descending)
            return named
        if self.key in ("size", "frees"):
            named.sort(key=lambda item: _figure(item, self.key), reverse=self.descending)
            return named
        known = [item for item in named if self._at(item) is not None]
        # The older, the higher: an age is what `used` and `made` are about.
        known.sort(key=lambda item: -(self._at(item) or 0.0), reverse=self.descending)
        return known + [item for item in named if self._at(item) is None]

    def _at(self, item: CacheItem) -> float | None:
        return item.used_at if self.key == "used" else item.made_at


def parse_sort(text: str) -> Sort:
    """``size``, ``used:asc``, ``name:desc``. Raises QuantuiError ``cache.bad-sort``."""
    key, colon, order = text.strip().lower().partition(":")
    if key in SORTS and (not colon or order in ("asc", "desc")):
        return Sort(key, order == "desc" if colon else SORTS[key][0])
    near = difflib.get_close_matches(key, SORTS, 1, 0.5)
    if key in SORTS:
        why, fix = f"{order!r} is no direction", f"Write {key}:asc or {key}:desc."
    else:
        why = f"there is no order {key[:40]!r}"
        fix = f"Did you mean {near[0]}?" if near else f"Orders: {', '.join(SORTS)}."
    raise QuantuiError("cache.bad-sort", f"{text[:60]!r} is no order: {why}.", fix=fix)
