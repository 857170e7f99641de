"""A deletion under way: it outlives the screen that began it, and says how far it is."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from textual.message import Message

from quantui.domain.caches.deletion import (
    Deleted,
    Deleting,
    DeletionProgress,
    DeletionReport,
    Kept,
)
from quantui.domain.caches.words import report_words
from quantui.domain.errors import QuantuiError
from quantui.domain.terminal_text import one_line
from quantui.tui.bugs import tell_bug

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import App

    from quantui.domain.caches.deletion import DeletionEvent, DeletionPlan
    from quantui.domain.caches.items import CacheItem

_TELL_EVERY_S = 0.12


class JobChanged(Message):
    """A deletion got on, or ended."""

    def __init__(self, job: DeletionJob) -> None:
        self.job = job
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Everything is in the job."""
        return isinstance(message, JobChanged) and message.job is self.job


class DeletionJob:
    """Does what ``plan`` says in a worker of the app; who watches gets :class:`JobChanged` a few times a second.

    ``done`` are the things that are through, in order; ``at`` the one under way, with its ``progress``. ``report``: the
    end. ``seen``: a screen showed the end.
    """

    def __init__(self, plan: DeletionPlan) -> None:
        self.plan = plan
        self.done: list[Deleted | Kept] = []
        self.at: CacheItem | None = None
        self.progress: DeletionProgress | None = None
        self.report: DeletionReport | None = None
        self.failed = ""
        self.ended = threading.Event()
        self.seen = False
        self._watching: list[Callable[[Message], object]] = []
        self._cancel = threading.Event()

    @property
    def living(self) -> bool:
        """Whether it goes on."""
        return not self.ended.is_set()

    @property
    def cancelling(self) -> bool:
        """Whether it was told to end."""
        return self._cancel.is_set()

    @property
    def freed(self) -> int:
        """Bytes given back so far."""
        if self.report is not None:
            return self.report.freed
        now = self.progress.freed if self.progress is not None else 0
        return sum(one.freed for one in self.done) + now

    @property
    def share(self) -> float:
        """How far it is, 0 to 1: by bytes where bytes are freed, else by things."""
        if self.report is not None and not self.report.cancelled:
            return 1.0
        if self.plan.frees:
            return min(1.0, self.freed / self.plan.frees)
        return len(self.done) / max(1, len(self.plan.goes))

    def start(self, app: App[Any]) -> None:
        """Begin; the worker is the app's, so that leaving a screen ends nothing."""
        app.run_worker(
            lambda: self._run(app), thread=True, group="cache-delete", exit_on_error=False
        )

    def cancel(self) -> None:
        """End after the file at hand."""
        self._cancel.set()

    def watch(self, tell: Callable[[Message], object]) -> None:
        """Tell ``tell`` of what happens; from any thread."""
        self._watching = [*self._watching, tell]

    def unwatch(self, tell: Callable[[Message], object]) -> None:
        """No more."""
        self._watching = [one for one in self._watching if one != tell]

    def _run(self, app: App[Any]) -> None:
        from quantui.runtime.caches.deleting import delete

        told = 0.0
        try:
            for event in delete(self.plan, cancelled=self._cancel.is_set):
                self._heard(event)
                if time.monotonic() - told >= _TELL_EVERY_S:
                    told = time.monotonic()
                    self._tell()
        except QuantuiError as error:
            self.failed = f"{error.what} {error.why} {error.fix}"
        except Exception as error:  # noqa: BLE001 - told as a defect; the wizard goes on
            self.failed = "It ended by a defect of quantui: look what is left, and try again."
            tell_bug(app, error)
        finally:
            self.ended.set()
            self._tell()
            if not self._watching:
                words = report_words(self.report, self.plan) if self.report else self.failed
                app.notify(one_line(words), title="cache", markup=False)

    def _tell(self) -> None:
        for tell in self._watching:
            tell(JobChanged(self))

    def _heard(self, event: DeletionEvent) -> None:
        if isinstance(event, Deleting):
            self.at, self.progress = event.item, None
        elif isinstance(event, DeletionProgress):
            self.progress = event
        elif isinstance(event, DeletionReport):
            self.report, self.at, self.progress = event, None, None
        else:
            self.done.append(event)
            self.at, self.progress = None, None
