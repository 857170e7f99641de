"""Following a log file that a child appends to."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20


class LogTail:
    """New lines of a growing file; progress bars' carriage returns end a line too.

    ``last_bytes``: begin with the whole lines among so many at its end; None: at its beginning.
    """

    def __init__(self, path: Path, last_bytes: int | None = None) -> None:
        self._path = path
        self._rest = b""
        self._offset = 0
        if last_bytes is not None:
            with contextlib.suppress(OSError):
                self._offset = max(0, path.stat().st_size - last_bytes)
        self.skipped_bytes = self._offset
        self._within = self._offset > 0

    def lines(self, *, final: bool = False) -> list[str]:
        """Complete lines since the last call; with ``final`` also one that has no end yet."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            while data := file.read(_CHUNK):
                self._offset += len(data)
                self._rest += data
        *whole, self._rest = re.split(rb"[\r\n]+", self._rest)
        if self._within and whole:
            del whole[0]
            self._within = False
        if final and self._rest:
            whole.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace") for line in whole if line]


def last_lines(path: Path, count: int) -> list[str]:
    """The last ``count`` lines of a log, for an error's detail; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()][-count:]
