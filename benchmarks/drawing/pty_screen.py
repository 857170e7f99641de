"""A program in a pseudo-terminal: what it has drawn, and when each part of that came."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COLUMNS, ROWS = 80, 24
_CONTROL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[PX^_].*?\x1b\\|\].*?(?:\x07|\x1b\\)|.)", re.S)


class Cell(NamedTuple):
    """One character as it is drawn."""

    data: str
    fg: str
    bg: str
    bold: bool
    reverse: bool


class LateError(Exception):
    """What was waited for was not drawn in time; the text is what the screen showed."""


class PtyScreen:
    """The program ``command`` on a screen of 80 x 24. ``started`` is when it was, in ``time.perf_counter`` seconds."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._unparsed = b""
        self.started = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(OSError):
                os.execvpe(command[0], list(command), dict(environment))
            os._exit(127)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def until_written(self, text: str, within_s: float = 60.0) -> float:
        """When the program wrote ``text``, by the clock of ``started``.

        Looks at what is written without drawing it, which would take time from the program on a small machine.
        """
        deadline, wanted = time.perf_counter() + within_s, text.encode()
        while True:
            came, part = self._read(deadline)
            self._unparsed += part
            if wanted in _CONTROL.sub(b"", self._unparsed):
                return came

    def until(self, holds: Callable[[], bool], within_s: float = 60.0) -> float:
        """When what made ``holds()`` true came, by the clock of ``started``; now, where it is true already."""
        self._draw()
        came, deadline = time.perf_counter(), time.perf_counter() + within_s
        while not holds():
            came, self._unparsed = self._read(deadline)
            self._draw()
        return came

    def until_shown(self, text: str, within_s: float = 60.0) -> float:
        """When ``text`` came to stand on the screen."""
        return self.until(lambda: text in self.text, within_s)

    def until_quiet(self, quiet_s: float = 0.3, within_s: float = 20.0) -> None:
        """Read until nothing has come for ``quiet_s`` seconds, or ``within_s`` have passed."""
        deadline = time.perf_counter() + within_s
        while time.perf_counter() < deadline and select.select([self._fd], [], [], quiet_s)[0]:
            _, self._unparsed = self._read(deadline + 1)
            self._draw()

    def _read(self, deadline: float) -> tuple[float, bytes]:
        left = deadline - time.perf_counter()
        if left <= 0 or not select.select([self._fd], [], [], left)[0]:
            self._draw()
            raise LateError(self.text)
        came = time.perf_counter()
        try:
            part = os.read(self._fd, 65536)
        except OSError:
            part = b""
        if not part:
            self._draw()
            raise LateError(f"the program ended:\n{self.text}")
        return came, part

    def _draw(self) -> None:
        # pyte knows neither the private mode reports nor the kitty keyboard protocol, and would print their ends.
        self._stream.feed(re.sub(rb"\x1b\[[<>=?][0-9;]*[$a-gi-km-z]", b"", self._unparsed))
        self._unparsed = b""

    @property
    def text(self) -> str:
        """What can be read on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """Every cell with its colours, row by row."""
        return tuple(tuple(self._row(number)) for number in range(ROWS))

    def _row(self, number: int) -> list[Cell]:
        line: Any = self._screen.buffer[number]
        cells = (line[column] for column in range(COLUMNS))
        return [Cell(c.data, c.fg, c.bg, c.bold, c.reverse) for c in cells]

    def press(self, keys: str) -> float:
        """Send keys as a terminal does; gives when, by the clock of ``started``."""
        pressed = time.perf_counter()
        os.write(self._fd, keys.encode())
        return pressed

    def cpu_s(self) -> float:
        """Seconds of CPU that the program's threads have used."""
        spent = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                spent += int((task / "schedstat").read_text().split()[0])
        return spent / 1e9

    def rss_bytes(self) -> int:
        """Resident bytes of the program itself, without its children."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """Close the terminal and wait until the program is gone; it is killed if it stays."""
        os.close(self._fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + 15
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return
            time.sleep(0.02)
