"""Work in the background of which only the newest matters: looking up what is highlighted, searching as one types."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[Callable[[], bool]], None]


class Lane:
    """Does one thing at a time in a thread of its own; of those that wait, only the newest is done.

    Work is called with a function that says whether something newer waits. It cannot be interrupted in a request
    to a Hub that does not answer: that is why the thread is not one of the few that workers share, and why it does
    not keep the program from ending. ``failed`` gets what a bug raised, on that thread.
    """

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        self._name = name
        self._failed = failed
        self._lock = threading.Lock()
        self._next: Work | None = None
        self._stop = threading.Event()
        self._busy = False

    def ask(self, work: Work) -> None:
        """Do ``work`` next; what is under way is told to stop."""
        with self._lock:
            self._stop.set()
            self._next = work
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def drop(self) -> None:
        """Tell what is under way to stop, and do nothing next."""
        with self._lock:
            self._stop.set()
            self._next = None

    def _run(self) -> None:
        while True:
            with self._lock:
                work, self._next = self._next, None
                if work is None:
                    self._busy = False
                    return
                self._stop = threading.Event()
                stopped = self._stop.is_set
            try:
                work(stopped)
            except Exception as error:  # noqa: BLE001 - told on the screen's side, the lane goes on
                self._failed(error)
