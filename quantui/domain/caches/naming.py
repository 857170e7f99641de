"""From what a person types to the things that are meant: names, paths, repositories with a revision, filters. Pure."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.caches.filters import KEYS, Filter, parse_filter
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.caches.words import sized, titled
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LEAST_PREFIX = 4
"""Characters of a commit that name it."""
_TERM = re.compile(r"[A-Za-z]*[<>=!~]=?(?!/)")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_MOST_CANDIDATES = 12
_OWN_ONLY = frozenset({Kind.REVISION, Kind.FOLDER})
"""Kinds that a filter picks only when it names the kind: parts of a whole that is listed, and what is the user's."""


@dataclass(frozen=True)
class Words:
    """What was typed, told apart: ``names`` each mean one thing; the words of ``filter`` must all hold."""

    names: tuple[str, ...]
    filter: Filter


def told_apart(words: Iterable[str], *, filters: Iterable[str] = ()) -> Words:
    """Names and filters among ``words``: a filter is what begins with a key and an operator.

    ``filters`` are nothing else. Raises QuantuiError ``cache.bad-filter``.
    """
    names, terms = [], list(filters)
    for word in words:
        if _TERM.match(word):
            terms.append(word)
        else:
            names.append(word)
    refuse_bare_keys(names)
    return Words(tuple(names), parse_filter(" ".join(terms)))


def refuse_bare_keys(words: Iterable[str]) -> None:
    """Refuse a key alone: the shell took the rest of ``size>10GB`` for a file to write to."""
    for word in words:
        if word in KEYS:
            raise QuantuiError(
                "cache.bad-filter",
                f"{word} alone says nothing.",
                f"Without quotes the shell reads {word}>X as: write to the file X.",
                f"Put it in quotes, {KEYS[word][1]}; a name that is {word}: name={word}",
            )


def pick(items: Mapping[str, CacheItem], words: Words, *, now: float) -> tuple[CacheItem, ...]:
    """The things that ``words`` mean: those that are named, or all where none is, as far as the filter matches.

    Raises QuantuiError ``cache.not-found`` with what is near and ``cache.ambiguous`` with the candidates.
    """
    if words.names:
        named = dict.fromkeys(find(items, name).path for name in words.names)
        return tuple(items[path] for path in named if words.filter.matches(items[path], now))
    return picked_by(items.values(), words.filter, now=now)


def picked_by(items: Iterable[CacheItem], wanted: Filter, *, now: float) -> tuple[CacheItem, ...]:
    """What a filter alone picks to be deleted or checked."""
    by_kind = any(term.key == "kind" for term in wanted.terms)
    return tuple(
        item
        for item in items
        if (by_kind or item.kind not in _OWN_ONLY) and wanted.matches(item, now)
    )


def same_named(items: Iterable[CacheItem]) -> dict[str, str]:
    """Path -> where it lies, of things that only their known folder tells from others of the same kind and name.

    Where: as many of the folder's last parts as tell the folders apart, ``…/second-hub``.
    """
    named: dict[tuple[Kind, str], list[CacheItem]] = defaultdict(list)
    for item in items:
        if item.kind is not Kind.REVISION:
            named[item.kind, item.name].append(item)
    found: dict[str, str] = {}
    for alike in named.values():
        roots = {one.root for one in alike}
        if len(roots) > 1:
            ends = _ends(roots)
            found |= {one.path: ends[one.root] for one in alike}
    return found


def _ends(folders: set[str]) -> dict[str, str]:
    """The last parts of each folder, as few for all as tell them apart."""
    parts = {folder: folder.strip("/").split("/") for folder in folders}
    for count in range(1, max(map(len, parts.values()))):
        ends = {folder: "/".join(named[-count:]) for folder, named in parts.items()}
        if len(set(ends.values())) == len(folders):
            return {folder: f"…/{end}" for folder, end in ends.items()}
    return {folder: folder for folder in folders}


def find(items: Mapping[str, CacheItem], name: str) -> CacheItem:
    """The one thing that ``name`` means.

    A path; a name as `quantui cache ls` shows it; the last part of a path; ``REPOSITORY@REVISION``, and a commit, as
    far as they are clear.
    """
    for found in _readings(items, name):
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(name, found)
    raise _not_found(items, name)


def _readings(items: Mapping[str, CacheItem], name: str) -> Iterable[Sequence[CacheItem]]:
    """What ``name`` may mean, the closest reading first."""
    path = name.rstrip("/") or name
    if path in items:
        yield [items[path]]
    things = list(items.values())
    wanted = name.casefold()
    whole = [item for item in things if item.kind is not Kind.REVISION]
    yield [item for item in whole if item.name == name]
    yield [item for item in whole if item.name.casefold() == wanted]
    repository, at, revision = name.rpartition("@")
    if at and repository and revision:
        yield from _revisions_of(items, repository, revision)
    yield [item for item in whole if item.path.rpartition("/")[2] == name]
    yield [
        item
        for item in whole
        if item.kind is Kind.HUB and item.name.rpartition("/")[2].casefold() == wanted
    ]
    if _COMMIT.fullmatch(wanted):
        yield [
            item
            for item in things
            if item.kind is Kind.REVISION and _commit(item).startswith(wanted)
        ]


def _revisions_of(
    items: Mapping[str, CacheItem], repository: str, revision: str
) -> Iterable[Sequence[CacheItem]]:
    """Revisions by their whole name, by a prefix of the commit, by a branch or tag that their words name."""
    wanted = repository.casefold()
    repositories = {
        item.path
        for item in items.values()
        if wanted in (item.name.casefold(), item.path.casefold())
    }
    of = [
        item
        for item in items.values()
        if item.kind is Kind.REVISION and item.parent in repositories
    ]
    yield [item for item in of if _commit(item) == revision.lower()]
    yield [
        item for item in of if re.search(rf"(^|[\s,]){re.escape(revision)}($|[\s,])", item.detail)
    ]
    if len(revision) >= _LEAST_PREFIX:
        yield [item for item in of if _commit(item).startswith(revision.lower())]


def _commit(item: CacheItem) -> str:
    """The commit of a revision: the name of its folder."""
    return item.path.rpartition("/")[2].lower()


def _ambiguous(name: str, found: Sequence[CacheItem]) -> QuantuiError:
    lines = [f"{titled(item)}  {sized(item.use.on_disk)}  {item.path}" for item in found]
    more = len(lines) - _MOST_CANDIDATES
    if more > 0:
        lines[_MOST_CANDIDATES:] = [f"and {more} more"]
    return QuantuiError(
        "cache.ambiguous",
        f"{name[:200]} means {len(found)} things.",
        "Nothing is deleted by a guess.",
        "Give the path of the one that is meant, or a filter for all of them.",
        detail=tuple(lines),
    )


def _not_found(items: Mapping[str, CacheItem], name: str) -> QuantuiError:
    names = list(
        dict.fromkeys(item.name for item in items.values() if item.kind is not Kind.REVISION)
    )
    wanted = name.casefold()
    near = [one for one in names if len(wanted) > 1 and wanted in one.casefold()]
    near += difflib.get_close_matches(name, names, 2, 0.75)
    near = list(dict.fromkeys(near))[:5]
    fix = (
        f"Did you mean {' or '.join(near)}?" if near else "`quantui cache ls` shows what there is."
    )
    return QuantuiError(
        "cache.not-found",
        f"Nothing in the caches is called {name[:200]}.",
        fix=fix,
        exit_code=ExitCode.NOT_FOUND,
    )
