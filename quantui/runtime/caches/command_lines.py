"""What a command line names: paths, and words such as the id of a repository."""

from __future__ import annotations

import itertools
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PATHS_WITHIN = re.compile(r"""(?<![^\s"'=,:\[({])/[^\s"',:\])}]+""")
"""Paths inside an argument: ``name=/path``, ``{"model": "/path"}``, ``name:/path``."""

_WORDS_WITHIN = re.compile(r"[^\s\"'=,:;\[\](){}]+")
_LONGEST_ARGUMENT = 8192


def asks_quantui(arguments: Sequence[str]) -> bool:
    """Whether it is a ``quantui cache`` itself, whose arguments name what it looks at or deletes."""
    return any(
        second == "cache" and os.path.basename(first) == "quantui"  # noqa: PTH119
        for first, second in itertools.pairwise(arguments[:6])
    )


def named_in(arguments: Iterable[str], cwd: str) -> tuple[set[str], set[str]]:
    """The words of a command line, and its paths, also those within an argument, as seen from the folder ``cwd``."""
    words: set[str] = set()
    paths: set[str] = set()
    for argument in arguments:
        if len(argument) > _LONGEST_ARGUMENT:
            continue
        whole = argument.partition("=")[2] if argument.startswith("-") else argument
        words.update((argument, whole, *_WORDS_WITHIN.findall(argument)))
        places = {whole, *_PATHS_WITHIN.findall(argument), *argument.split("=")[1:]}
        for place in places:
            paths.update(as_paths(place, cwd))
    words.discard("")
    return words, paths


def as_paths(place: str, cwd: str) -> tuple[str, ...]:
    """The path that a text names, as written and with its links followed: the thing is where they lead."""
    if is_descriptor(place):
        return ()
    if place.startswith("/"):
        return tuple({os.path.normpath(place), os.path.realpath(place)})
    if not place or place.startswith("-") or not cwd:
        return ()
    joined = os.path.join(cwd, place)  # noqa: PTH118 - paths are text here
    # A word is a path only where there is something: `serve` is none.
    return (os.path.realpath(joined),) if os.path.lexists(joined) else ()


def is_descriptor(path: str) -> bool:
    """Whether it is a device, or a name like /dev/fd/3, which is another file in that process than in this one.

    People keep models in /dev/shm: it is memory with the names of files.
    """
    return path.startswith("/proc/") or (
        path.startswith("/dev/") and not path.startswith("/dev/shm/")
    )
