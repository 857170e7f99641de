"""Which modules the names and patterns of a ``quantization_config`` mean: those left out, those of a scheme."""

from __future__ import annotations

import re
from functools import lru_cache

_LEADING = re.compile(r"^(?:model\.|language_model\.|transformer\.|thinker\.)+")
_NESTED_REPEAT = re.compile(r"[+*}][)\]]*\)[+*{]")
_LONGEST_PATTERN = 400
_MOST_PATTERNS = 200
_MOST_STARS = 8


def is_named(name: str, names: tuple[str, ...]) -> bool:
    """Whether ``names`` hold the module ``name`` (with its layer's index), or a part that it is in."""
    plain, patterns = _rules(names)
    bare = _LEADING.sub("", name)
    parts = bare.split(".")
    ends = range(1, len(parts) + 1)
    if any(".".join(parts[a:b]) in plain for b in ends for a in range(b)):
        return True
    return any(p.match(bare) or (also and p.match(name)) for p, also in patterns)


@lru_cache(maxsize=32)
def _rules(
    names: tuple[str, ...],
) -> tuple[frozenset[str], tuple[tuple[re.Pattern[str], bool], ...]]:
    """Names to be found as whole components, and patterns; True: to be tried on the whole name as well."""
    plain: set[str] = set()
    patterns: list[tuple[re.Pattern[str], bool]] = []
    for text in names:
        if text.startswith("re:"):
            compiled = _compiled(text[3:])
            if compiled is not None:
                patterns.append((compiled, True))
        elif "*" in text:
            parts = map(re.escape, _LEADING.sub("", text).split("*")[:_MOST_STARS])
            patterns.append((re.compile(".*".join(parts)), False))
        else:
            plain.add(_LEADING.sub("", text).strip("."))
    return frozenset(plain), tuple(patterns[:_MOST_PATTERNS])


def _compiled(expression: str) -> re.Pattern[str] | None:
    # A pattern comes from a stranger: what could take exponential time is not tried.
    if len(expression) > _LONGEST_PATTERN or _NESTED_REPEAT.search(expression):
        return None
    try:
        return re.compile(expression)
    except (re.error, RecursionError, OverflowError):
        return None
