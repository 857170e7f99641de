"""Who uses the things that were found: running processes, profiles, and the runs of the past."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Kind, ProcessUse
from quantui.runtime.caches.own_items import measured_items
from quantui.runtime.caches.processes import process_uses
from quantui.runtime.caches.profile_uses import ProfileUses
from quantui.runtime.history import read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantui.domain.run_summary import RunSummary
    from quantui.runtime.caches.processes import ProcessUses


def used(
    fresh: Mapping[str, CacheItem], known: Mapping[str, CacheItem], stop: Callable[[], bool]
) -> Iterator[CacheItem]:
    """The items of ``fresh`` that processes or profiles use, with those; ``known``: all that was found so far."""
    changed: dict[str, CacheItem] = {}
    for item in with_users(fresh, stop):
        changed[item.path] = item
        yield item
    if stop():
        return
    profiles = ProfileUses(known)
    for path, before in fresh.items():
        if stop():
            return
        item = changed.get(path, before)
        files = profiles.of(item)
        if files != item.profiles:
            yield replace(item, profiles=files)


def remembered(known: Mapping[str, CacheItem], stop: Callable[[], bool]) -> Iterator[CacheItem]:
    """The items of ``known`` that records of runs tell more of, with it. Reading the records may write summaries."""
    past = Past(stop)
    yield from _written_by_now(known, stop)
    for item in known.values():
        if stop():
            return
        later = past.told(item)
        if later is not item:
            yield later


def _written_by_now(
    known: Mapping[str, CacheItem], stop: Callable[[], bool]
) -> Iterator[CacheItem]:
    """What quantui itself keeps, measured again where it has changed."""
    if not any(item.kind is Kind.MEASURED for item in known.values()):
        return
    for item in measured_items(stop):
        before = known.get(item.path)
        if isinstance(item, CacheItem) and before is not None and item.stamp != before.stamp:
            yield replace(item, users=before.users)


def with_users(known: Mapping[str, CacheItem], stop: Callable[[], bool]) -> Iterator[CacheItem]:
    """The items that running processes use, with those."""
    if stop():
        return
    uses = process_uses()
    for item in known.values():
        if stop():
            return
        users = _users(item, known, uses)
        if users != item.users:
            yield replace(item, users=users)


def _users(
    item: CacheItem, known: Mapping[str, CacheItem], uses: ProcessUses
) -> tuple[ProcessUse, ...]:
    """The processes that its source knows of, then those that were seen to use it, each once."""
    if item.kind is Kind.HUB:
        seen = uses.of(item.path, (item.name,))
    elif item.kind is Kind.REVISION:
        seen = _users_of_revision(item, known, uses)
    else:
        seen = uses.of(item.path)
    told = {use.pid for use in item.users}
    return (*item.users, *(use for use in seen if use.pid not in told))


def _users_of_revision(
    item: CacheItem, known: Mapping[str, CacheItem], uses: ProcessUses
) -> tuple[ProcessUse, ...]:
    """Files of a revision are links: what a process has open are the blobs. Its repository's name means named ones."""
    repository = known.get(item.parent or "")
    names = () if repository is None else (repository.name,)
    of_all = uses.of(item.parent or item.path, names)
    if not of_all:
        return ()
    found = {use.pid: use for use in uses.of(item.path)}
    for target in _targets(item.path):
        for use in uses.of(target):
            found.setdefault(use.pid, use)
    if not item.detached:
        for use in uses.of(item.path, names):
            found.setdefault(use.pid, use)
    return tuple(sorted(found.values(), key=lambda use: use.pid))


def _targets(snapshot: str) -> Iterator[str]:
    """Where the links of a snapshot lead."""
    for parent, _, names in os.walk(snapshot):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - names need not be UTF-8
            if os.path.islink(path):  # noqa: PTH114
                yield os.path.realpath(path)


class Past:
    """What the records of runs tell: when a thing was used last, and what a run was about."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._at: dict[str, float] = {}
        self._runs: dict[str, RunSummary] = {}
        for run in read_history():
            if stop():
                return
            self._note(run)

    def told(self, item: CacheItem) -> CacheItem:
        """The item with what the records know of it."""
        if item.kind is Kind.RUN:
            run = self._runs.get(item.path)
            return item if run is None else replace(item, detail=_about(run), made_at=run.started)
        key = _key(item)
        at = None if key is None else self._at.get(key)
        if at is None or (item.used_at is not None and item.used_at >= at):
            return item
        return replace(item, used_at=at)

    def _note(self, run: RunSummary) -> None:
        self._runs[run.directory] = run
        if run.started is None:
            return
        at = run.started + (run.seconds or 0.0)
        engine = run.engine.partition(" ")[0]
        about = [*run.made, run.model, *run.adapters, f"engine {engine}"]
        about += [f"{run.model}@{run.revision}"] if run.revision else []
        for key in about:
            self._at[key] = max(at, self._at.get(key, 0.0))


def _key(item: CacheItem) -> str | None:
    """As :class:`Past` calls the thing."""
    if item.kind is Kind.HUB:
        return item.name
    if item.kind is Kind.REVISION:
        repository = os.path.basename(item.parent or "")  # noqa: PTH119
        name = repository.partition("--")[2].replace("--", "/")
        return f"{name}@{os.path.basename(item.path)}"  # noqa: PTH119
    return f"engine {item.name}" if item.kind is Kind.ENGINE else item.path


def _about(run: RunSummary) -> str:
    """``llama + my-lora, awq: ok``."""
    return ", ".join(filter(None, (run.title, run.method))) + f": {run.outcome}"
