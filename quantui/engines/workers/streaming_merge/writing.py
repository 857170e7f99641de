"""Write the result's files: blocks of a few megabytes, by several threads, in the order of the data.

A block is filled from the base (copied where nothing changes, computed where something does) and written
in one go. Threads take the next block wherever it is, so that one shard keeps all cores as busy as many.
"""

from __future__ import annotations

import bisect
import errno
import os
import threading
from collections.abc import Callable  # noqa: TC003 - a dataclass field
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import atomic_folder
from quantui_wire import notice

from streaming_merge.arithmetic import Arithmetic, ColumnFactors
from streaming_merge.checkpoint import ITEM_BYTES
from streaming_merge.direct_file import DirectFile, block_buffer, read_into

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator
    from pathlib import Path

    from streaming_merge.journal import Journal
    from streaming_merge.operations import Output, OutputShard, Plan
    from streaming_merge.sources import Sources

BLOCK_BYTES = 4 << 20
_LEAST_COPY = 1 << 20
"""Bytes that a range must have for a copy in the kernel to be worth its call."""


@dataclass
class Progress:
    """Bytes of the result that are written, and those found written before."""

    total: int
    done: int = 0
    resumed_files: int = 0


@dataclass
class _File:
    """A file being written: blocks left, and what its tensors' sums of squares come to by block."""

    shard: OutputShard
    offsets: tuple[int, ...]
    target: DirectFile
    blocks: list[int]
    left: int
    squares: dict[str, dict[int, float]] = field(default_factory=dict)


@dataclass
class Writer:
    """Writes what is left of ``plan`` into ``folder``; ``device`` computes, ``threads`` share the work."""

    plan: Plan
    folder: Path
    sources: Sources
    journal: Journal
    device: str
    threads: int
    fallback: bool = True
    finished: Callable[[OutputShard], None] | None = None
    """Called by the thread that has finished a file, while the others write the next."""
    progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _files: Iterator[_File] = field(init=False)
    _file: _File | None = None
    _opened: list[_File] = field(default_factory=list)
    _error: BaseException | None = None
    _columns: ColumnFactors = field(default_factory=ColumnFactors)

    def __post_init__(self) -> None:
        self.progress = Progress(self.plan.bytes)
        for shard in self.plan.shards:
            if shard.file in self.journal.finished:
                self.progress.done += shard.size
                self.progress.resumed_files += 1
        self._files = self._unfinished()

    def run(self, report: Callable[[], None]) -> None:
        """Write every file; ``report`` is called four times a second.

        Raises:
            NotFiniteError: A merged tensor is not finite.
            OSError: The disk is full, or a file cannot be read or written.
        """
        workers = [
            threading.Thread(target=self._work, name=f"merge-{number}", daemon=True)
            for number in range(self.threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.25)
                report()
        if self._error is not None:
            for file in self._opened:
                file.target.abandon()
            raise self._error
        report()

    def _unfinished(self) -> Iterator[_File]:
        for shard in self.plan.shards:
            if shard.file not in self.journal.finished:
                yield self._open(shard)

    def _open(self, shard: OutputShard) -> _File:
        target = DirectFile(self.folder / f"{shard.file}.part", shard.size)
        offsets = shard.offsets
        blocks = list(range(0, shard.size, BLOCK_BYTES))
        if shard.like is not None and target.clone(self.sources.base(shard.like)):
            blocks = [
                start for start in blocks if _changes(shard, offsets, start, start + BLOCK_BYTES)
            ]
            self.progress.done += shard.size - sum(
                min(BLOCK_BYTES, shard.size - start) for start in blocks
            )
        file = _File(shard, offsets, target, blocks[::-1], len(blocks))
        self._opened.append(file)
        return file

    def _next(self) -> tuple[_File, int] | None:
        """The next block to fill, by file and offset; None: no more, or another thread failed."""
        with self._lock:
            while self._error is None and not atomic_folder.stopping.is_set():
                if self._file is not None and self._file.blocks:
                    return self._file, self._file.blocks.pop()
                self._file = next(self._files, None)
                if self._file is None:
                    return None
                if not self._file.blocks:
                    self._finish(self._file)
        return None

    def _work(self) -> None:
        try:
            buffer = block_buffer(BLOCK_BYTES)
            arithmetic = Arithmetic(self.sources, self._columns, self.device)
            while (task := self._next()) is not None:
                file, start = task
                stop = min(start + BLOCK_BYTES, file.shard.size)
                arithmetic = self._block(file, start, stop, buffer, arithmetic)
                with self._lock:
                    file.left -= 1
                    last = file.left == 0
                    self.progress.done += stop - start
                if last:
                    self._finish(file)
                    if self.finished is not None:
                        self.finished(file.shard)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._error = self._error or error

    def _block(
        self, file: _File, start: int, stop: int, buffer: mmap.mmap, arithmetic: Arithmetic
    ) -> Arithmetic:
        """Fill and write one block; gives the arithmetic to go on with, which may be the CPU's now."""
        try:
            self._fill(file, start, stop, buffer, arithmetic)
        except RuntimeError as error:
            if arithmetic.device == "cpu" or not self.fallback:
                raise
            with self._lock:
                if self.device != "cpu":
                    first_line = (str(error).splitlines() or [""])[0]
                    notice(f"The GPU failed; the CPU goes on: {first_line}", level="warning")
                    self.device = "cpu"
            arithmetic = Arithmetic(self.sources, self._columns, "cpu")
            self._fill(file, start, stop, buffer, arithmetic)
        return arithmetic

    def _fill(
        self, file: _File, start: int, stop: int, buffer: mmap.mmap, arithmetic: Arithmetic
    ) -> None:
        shard = file.shard
        if not file.target.direct and self._copied(file, start, stop):
            return
        view = memoryview(buffer)
        head = shard.header[start:stop]
        view[: len(head)] = head
        for output, begin, end in _within(shard, file.offsets, start, stop):
            low, high = max(begin, start), min(end, stop)
            part = view[low - start : high - start]
            if output.merged or output.dtype != output.source.dtype:
                squares = _compute(output, arithmetic, low - begin, high - begin, part)
                if output.direction is not None:
                    with self._lock:
                        file.squares.setdefault(output.name, {})[start] = squares
            else:
                read_into(self.sources.of(output), part, output.source.offset + low - begin)
        file.target.write(buffer, stop - start, start)

    def _copied(self, file: _File, start: int, stop: int) -> bool:
        """Copy a block in which nothing changes without reading it, where that works."""
        shard = file.shard
        if (
            shard.like is None
            or stop - start < _LEAST_COPY
            or _changes(shard, file.offsets, start, stop)
        ):
            return False
        try:
            file.target.copy(self.sources.base(shard.like), start, stop - start)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise
            return False
        return True

    def _finish(self, file: _File) -> None:
        file.target.finish(self.folder / file.shard.file)
        self._opened.remove(file)
        facts = {
            name: sum(values[start] for start in sorted(values))
            for name, values in file.squares.items()
        }
        self.journal.add(file.shard.file, file.shard.size, facts)


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def _within(
    shard: OutputShard, offsets: tuple[int, ...], start: int, stop: int
) -> Iterator[tuple[Output, int, int]]:
    """(tensor, where it begins, where it ends) for each that has bytes from ``start`` to ``stop``."""
    number = max(0, bisect.bisect_right(offsets, start) - 1)
    while number < len(shard.outputs) and offsets[number] < stop:
        if offsets[number + 1] > max(start, offsets[number]):
            yield shard.outputs[number], offsets[number], offsets[number + 1]
        number += 1


def _changes(shard: OutputShard, offsets: tuple[int, ...], start: int, stop: int) -> bool:
    """Whether any byte from ``start`` to ``stop`` differs, or may, from the base's file."""
    return any(not output.untouched for output, _, _ in _within(shard, offsets, start, stop))


def _compute(
    output: Output, arithmetic: Arithmetic, begin: int, end: int, into: memoryview
) -> float:
    """Bytes ``begin`` to ``end`` of ``output`` into ``into``, also where they cut an element in two."""
    item = ITEM_BYTES[output.dtype]
    first, last = begin // item, -(-end // item)
    if begin % item == 0 and end % item == 0:
        return arithmetic.compute(output, first, last, into)
    whole = bytearray((last - first) * item)
    squares = arithmetic.compute(output, first, last, memoryview(whole))
    into[:] = memoryview(whole)[begin - first * item : end - first * item]
    return squares


def thread_count(workers: int | None) -> int:
    """Threads for ``workers`` busy cores (None: all that this process may use).

    One more, since some wait for the disk while others compute (measured on 2 cores: 3.1 s with three,
    3.6 with four, whose short operations wait for Python's lock), and at most 16.
    """
    cores = workers or len(os.sched_getaffinity(0))
    return max(2, min(16, cores + 1))
