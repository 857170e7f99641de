"""Deletes in a cache of huggingface_hub, and only by its own DeleteCacheStrategy.

Everything is looked at again first: the plan's stamps, the processes, huggingface_hub's locks, and what its strategy
would take. Then branches and tags go, what makes a snapshot a model, the snapshots, and last the blobs that by then
nothing refers to. A download that begins meanwhile keeps its blobs, and the repository's folder.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.deletion import Deleted, DeletionEvent, DeletionProgress, Kept
from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.errors import QuantuiError
from quantui.runtime.caches import hub_strategies as strategies
from quantui.runtime.caches.guards import changed, refuse_used
from quantui.runtime.caches.hub_freed import freed, look
from quantui.runtime.caches.hub_locks import held_locks
from quantui.runtime.caches.hub_turn import BEGUN, Turn, read_turn
from quantui.runtime.caches.places import refuse_mounts
from quantui.runtime.caches.processes import process_uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from huggingface_hub import DeleteCacheStrategy

    from quantui.runtime.caches.places import Place

_EVERY_S = 0.1
_AT_ONCE = 16
"""Blobs that one strategy takes: progress is told, and stopping is possible, between any two."""


class HubDeleting:
    """Deletes the Hub's things of one plan, repository by repository."""

    def __init__(self) -> None:
        self._plans = strategies.HubPlans()

    def delete(
        self, group: Sequence[tuple[CacheItem, Place]], *, cancelled: Callable[[], bool]
    ) -> Iterator[DeletionEvent]:
        """Delete a repository, or parts of one; ends with Deleted or Kept for each.

        Raises QuantuiError and OSError for what keeps all of them.
        """
        item, place = group[0]
        if item.kind is Kind.INCOMPLETE and item.parent is None:
            yield _swept(item, place)
            return
        turn = read_turn(group)
        if turn is None:
            yield from (Deleted(one, 0) for one, _ in group)
            return
        refuse_mounts(turn.repo)
        yield from turn.settled()
        if not turn.items:
            return
        uses = process_uses()
        for one in list(turn.items):
            try:
                refuse_used([use for path in turn.held_by(one) for use in uses.of(path)])
                refuse_used(uses.of(one.path, turn.names))
            except QuantuiError as error:
                yield turn.drop(one, error.what)
        with held_locks(turn.root, turn.name, turn.blobs_by_size()) as busy:
            pass
        for one in list(turn.items):
            if busy & turn.blob_names(one):
                yield turn.drop(one, "in use: it is being downloaded")
        if turn.items:
            yield from self._carried_out(turn, cancelled)

    def _carried_out(self, turn: Turn, cancelled: Callable[[], bool]) -> Iterator[DeletionEvent]:
        strategy = self._strategy(turn)
        before = look(turn.repo, turn.payload_files())
        work = _Work(turn, strategy, cancelled)
        yield from work.steps()
        gone = freed(before, look(turn.repo, turn.payload_files()), turn.owner_of)
        last = turn.items[-1]
        for one in turn.items:
            size, files = gone.pop(one.path, (0, 0))
            if one is last:
                # What belongs to none of them alone, such as the repository's own folders, went with the last one.
                size += sum(rest for rest, _ in gone.values())
                files += sum(rest for _, rest in gone.values())
            yield work.ended(one, size, files)

    def _strategy(self, turn: Turn) -> DeleteCacheStrategy:
        """huggingface_hub's strategy, or an empty one to fill for what it lists no revision of."""
        commits = turn.commits()
        scan = turn.scan
        if not commits or scan.damage or scan.elsewhere or turn.leads_out():
            # It is not listed, or only the whole of it may go: links in it are unlinked, and nothing behind them.
            return strategies.empty_strategy(turn.root)
        found = self._plans.strategy(turn.root, turn.repo, commits)
        if found is None:
            raise changed()
        allowed = f"{turn.repo}/"
        for path in (*found.blobs, *found.refs, *found.snapshots):
            if not str(path).startswith(allowed) or not strategies.is_plain(str(path), turn.root):
                raise changed()
        return found


class _Work:
    """The phases of one turn."""

    def __init__(
        self, turn: Turn, strategy: DeleteCacheStrategy, cancelled: Callable[[], bool]
    ) -> None:
        self._turn = turn
        self._strategy = strategy
        self._cancelled = cancelled
        self._why = ""
        self._problem = ""
        self._files = 0
        self._freed = 0
        self._told = time.monotonic()

    def steps(self) -> Iterator[DeletionEvent]:
        """Carry all phases out, telling how far it is."""
        turn = self._turn
        if not turn.scan.elsewhere:
            if self._stop():
                return
            doomed = turn.commits()
            self._do(refs=strategies.refs_of(turn.repo, turn.refs(), doomed))
            snapshots = turn.snapshots()
            self._do(refs=[one for path in snapshots for one in strategies.identity_files(path)])
            for path in snapshots:
                if self._stop():
                    return
                self._do(snapshots=[path])
                yield from self._progress()
            yield from self._blobs()
        if self._why:
            return
        if not turn.whole_goes():
            if turn.whole and not self._problem:
                self._why = BEGUN
            return
        if not turn.scan.elsewhere and not turn.scan.damage:
            # A download that begins now puts files into these folders: only empty ones go, and those stay.
            self._do(repos=strategies.leftovers(turn.repo, turn.commits()))
            strategies.remove_empty(turn.repo)
        if os.path.lexists(turn.repo):
            if turn.whole_goes():
                self._do(repos=[turn.repo])
            elif turn.whole and not self._problem:
                self._why = BEGUN

    def ended(self, item: CacheItem, size: int, files: int) -> Deleted | Kept:
        """How it ended for a thing, of which ``size`` bytes and ``files`` are gone."""
        there = os.path.lexists(item.path)
        if not there and not (self._why and self._turn.needs_blobs(item)):
            return Deleted(item, size, files)
        if self._why:
            return Kept(item, self._why, size)
        reason = f": {self._problem}" if self._problem else ""
        return Kept(item, f"huggingface_hub could not remove it{reason}", size)

    def _blobs(self) -> Iterator[DeletionEvent]:
        """The doomed blobs that nothing refers to now, each of which goes with its entry in the shared store."""
        turn = self._turn
        blobs = turn.unreferenced_now()
        for start in range(0, len(blobs), _AT_ONCE):
            if self._stop():
                return
            some = blobs[start : start + _AT_ONCE]
            if not strategies.is_plain(some[0], turn.root):
                self._why = "it has changed since it was looked at"
                return
            # No longer than that: whoever waits for a lock has seen the blob, and does not look again.
            with held_locks(turn.root, turn.name, map(os.path.basename, some)) as busy:
                self._why = BEGUN if busy else turn.news()
                if self._why:
                    return
                self._count(some)
                self._do(blobs=some)
            yield from self._progress()

    def _count(self, blobs: Sequence[str]) -> None:
        for path in blobs:
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                self._files += 1
                self._freed += status.st_blocks * 512 if status.st_nlink == 1 else 0

    def _do(
        self,
        *,
        refs: Sequence[str] = (),
        snapshots: Sequence[str] = (),
        blobs: Sequence[str] = (),
        repos: Sequence[str] = (),
    ) -> None:
        part = strategies.narrowed(
            self._strategy, refs=refs, snapshots=snapshots, blobs=blobs, repos=repos
        )
        problem = strategies.execute(part)
        self._problem = self._problem or problem

    def _stop(self) -> bool:
        if self._cancelled():
            self._why = (
                "stopped; what is left of it takes room still, and deleting it again goes on"
            )
        return bool(self._why)

    def _progress(self) -> Iterator[DeletionEvent]:
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            yield DeletionProgress(self._turn.items[-1], self._files, self._freed)


def _swept(item: CacheItem, place: Place) -> DeletionEvent:
    """Collect a blob of the shared store that nothing refers to, as ``hf cache prune`` does."""
    try:
        from huggingface_hub.utils import _shared_blobs
    except ImportError:
        return Kept(item, "this huggingface_hub knows no shared blobs: hf cache prune removes it")
    refuse_mounts(place.path)
    refuse_used(process_uses().of(place.path))
    before = _blocks(place.path) + _blocks(f"{place.path}.refs")
    if not before:
        return Deleted(item, 0)
    # It is looked at under its own lock there: one that has a reference by now stays.
    with contextlib.suppress(OSError):
        _shared_blobs.sweep_shared_blob(Path(place.path), cache_dir=place.root)
    if os.path.lexists(place.path):
        return Kept(item, "something refers to it now, or its list of references cannot be read")
    return Deleted(item, before - _blocks(f"{place.path}.refs"), 1)


def _blocks(path: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_blocks * 512 if status.st_nlink == 1 and stat.S_ISREG(status.st_mode) else 0
