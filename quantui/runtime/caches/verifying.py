"""Verify things on disk: read them to the end and compare with what they should be.

The Hub's blobs against their names, checkpoints of quantui's against the hashes in their record, environments
against the ``RECORD`` of each wheel, downloaded folders against the etags beside them.
"""

from __future__ import annotations

import os
import queue
import shlex
import stat
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.items import Kind
from quantui.domain.caches.verification import (
    Finding,
    Soundness,
    VerificationEvent,
    Verified,
    Verifying,
    soundness_of,
    worst_first,
)
from quantui.runtime.caches.content import Expected, Stopped, check, digests_of
from quantui.runtime.caches.engine_content import engine_content
from quantui.runtime.caches.hub_content import Content, hub_content
from quantui.runtime.caches.made_content import made_content
from quantui.runtime.made_hashes import keep_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from quantui.domain.caches.items import CacheItem

_TICK_S = 0.1
_THREADS = 4
"""More would only wait for the disk; fewer leave it idle while a core computes."""

_CONTENTS: dict[Kind, Callable[[CacheItem], Content]] = {
    Kind.HUB: hub_content,
    Kind.REVISION: hub_content,
    Kind.MERGED: made_content,
    Kind.QUANTIZED: made_content,
    Kind.FOLDER: made_content,
    Kind.ENGINE: engine_content,
}
_NOTHING_TO_COMPARE = {
    Kind.INCOMPLETE: "it was not downloaded to the end, or nothing refers to it any more",
    Kind.UNFINISHED: "it was not made to the end",
    Kind.BROKEN: "it did not pass its proof, and is never used",
    Kind.TRASH: "it was deleted: take it back first (quantui cache undo)",
}


_FIXES = {
    Kind.HUB: "delete it (quantui cache rm {name}): it is downloaded again when it is needed next",
    Kind.REVISION: "delete it (quantui cache rm): it is downloaded again when it is needed next",
    Kind.MERGED: "delete it (quantui cache rm {name}): the same run makes it again",
    Kind.QUANTIZED: "delete it (quantui cache rm {name}): the same run makes it again",
    Kind.ENGINE: "make it anew: quantui engine install {name} --force",
    Kind.FOLDER: "copy or download these files again: quantui does not change your folders",
}
"""What to do about damage, where the finding has no better word."""


def never() -> bool:
    """Not cancelled."""
    return False


def verify(
    items: Iterable[CacheItem], *, cancelled: Callable[[], bool] = never
) -> Iterator[VerificationEvent]:
    """Check each item in turn: :class:`Verifying` several times a second, then its :class:`Verified`.

    What several items share is read once. Cancelled, it ends without the verdict of the item under way. A checkpoint
    of quantui's own whose hashes are not recorded yet gets them recorded, and is UNKNOWN until the next check.
    """
    known = _Known()
    for item in items:
        yield Verifying(item, 0, 0)
        verdict = yield from _Check(item, known).run(cancelled)
        if verdict is None:
            return
        yield verdict


class _Known:
    """Digests of files that were read, by the file: revisions share blobs, repositories share payloads."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], frozenset[str]] = {}

    def digests(self, expected: Expected, advance: Callable[[int], None]) -> frozenset[str]:
        """Of the file's content, read where it was not before; then ``advance`` gets all of it at once."""
        found = os.stat(expected.path)  # noqa: PTH116 - names need not be UTF-8
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, expected.algorithm)
        digests = self._found.get(key)
        if digests is None:
            digests = digests_of(expected.path, expected.algorithm, advance)
            self._found[key] = digests
        else:
            advance(found.st_size)
        return digests


class _Check:
    """The check of one item, its files read by a few threads."""

    def __init__(self, item: CacheItem, known: _Known) -> None:
        self._item = item
        self._known = known
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._done = 0
        self._checked = 0
        self._found: list[Finding] = []
        self._unrecorded: dict[str, str] = {}

    def run(self, cancelled: Callable[[], bool]) -> Generator[Verifying, None, Verified | None]:
        """Progress; gives the verdict, None when cancelled."""
        item = self._item
        if item.kind not in _CONTENTS:
            why = _NOTHING_TO_COMPARE.get(item.kind, "nothing says what it should be")
            return Verified(item, Soundness.UNKNOWN, (Finding(why, counts=Soundness.UNKNOWN),))
        if not os.path.lexists(item.path):
            gone = Finding("is gone", counts=Soundness.INCOMPLETE)
            return Verified(item, Soundness.INCOMPLETE, (gone,))
        content = _CONTENTS[item.kind](item)
        self._found += content.findings
        total = sum(map(_length, content.expected))
        left: queue.SimpleQueue[Expected] = queue.SimpleQueue()
        for expected in content.expected:
            left.put(expected)
        threads = min(_THREADS, len(content.expected))
        with ThreadPoolExecutor(max(1, threads)) as pool:
            try:
                works = {pool.submit(self._work, left) for _ in range(threads)}
                while works:
                    if cancelled():
                        return None
                    done, works = wait(works, _TICK_S)
                    for work in done:
                        work.result()
                    yield Verifying(item, min(self._done, total), total)
            finally:
                # Also when nobody asks for the rest: the pool waits for its threads.
                self._stop.set()
        return self._verdict()

    def _work(self, left: queue.SimpleQueue[Expected]) -> None:
        while not self._stop.is_set():
            try:
                expected = left.get_nowait()
            except queue.Empty:
                return
            try:
                finding = check(expected, self._digests)
                if finding is None and not expected.digests and self._records:
                    (digest,) = self._digests(expected)
                    with self._lock:
                        self._unrecorded[expected.shown] = digest
            except Stopped:
                return
            except OSError:
                finding = Finding("went away while it was checked", expected.shown)
            if finding is not None:
                with self._lock:
                    self._found.append(finding)

    def _digests(self, expected: Expected) -> frozenset[str]:
        digests = self._known.digests(expected, self._advance)
        if expected.digests:
            with self._lock:
                self._checked += _length(expected)
        return digests

    def _advance(self, count: int) -> None:
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            self._done += count

    @property
    def _records(self) -> bool:
        return self._item.kind in (Kind.MERGED, Kind.QUANTIZED, Kind.FOLDER)

    def _verdict(self) -> Verified:
        if self._unrecorded and soundness_of(tuple(self._found)) is not Soundness.DAMAGED:
            self._found.append(self._record())
        findings = worst_first(tuple(self._found))
        state = soundness_of(findings)
        fix = _FIXES.get(self._item.kind, "")
        if state in (Soundness.DAMAGED, Soundness.INCOMPLETE) and not findings[0].fix:
            findings = (
                replace(findings[0], fix=fix.replace("{name}", shlex.quote(self._item.name))),
                *findings[1:],
            )
        return Verified(self._item, state, findings, self._checked)

    def _record(self) -> Finding:
        """Keep the hashes of files that had none: from now on a change of theirs is seen."""
        number = len(self._unrecorded)
        files = f"{number} files" if number > 1 else "a file"
        had = f"{files} had no hash to compare with; every size is right"
        if keep_hashes(Path(self._item.path), self._unrecorded):
            return Finding(
                f"{had}, and the hashes are recorded now",
                fix="verify it again at any time: the content is compared from now on",
                counts=Soundness.UNKNOWN,
            )
        return Finding(
            f"{had}, and the hashes could not be recorded",
            fix="make its record writable and verify it again",
            counts=Soundness.UNKNOWN,
        )


def _length(expected: Expected) -> int:
    """Bytes of a file; 0 where it is none."""
    try:
        found = os.stat(expected.path)  # noqa: PTH116 - names need not be UTF-8
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
