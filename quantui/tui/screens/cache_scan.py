"""Looking at the disk for the cache screen: in a thread, told a few times a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual import work
from textual.message import Message
from textual.worker import get_current_worker

from quantui.domain.errors import QuantuiError
from quantui.tui.cache_kept import CacheKept, kept_of
from quantui.tui.giving_way import giving_way
from quantui.tui.screens.over import OverScreen

if TYPE_CHECKING:
    from quantui.domain.caches.items import CacheDisk, CacheItem, ScanProblem

_TELL_EVERY_S = 0.2
"""How often the tables hear of a scan."""


class CacheScan(OverScreen):
    """Finds what takes the disk and keeps it; what is shown of it is the subclass's."""

    class Scanned(Message):
        """What was found so far."""

        def __init__(
            self,
            items: dict[str, CacheItem],
            problems: tuple[ScanProblem, ...],
            disks: tuple[CacheDisk, ...],
            *,
            done: bool,
        ) -> None:
            self.items = items
            self.problems = problems
            self.disks = disks
            self.done = done
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            """A newer one holds all of an older one."""
            return isinstance(message, CacheScan.Scanned)

    class Surroundings(Message):
        """What the scan does not tell: the known folders, and the budget."""

        def __init__(
            self, roots: dict[str, str], budget: int | None, error: QuantuiError | None = None
        ) -> None:
            self.roots = roots
            self.budget = budget
            self.error = error
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self.done = False
        """Whether everything was looked at."""

    @property
    def kept(self) -> CacheKept:
        """What outlives the screen."""
        return kept_of(self.wizard.session)

    @work(thread=True, exclusive=True, group="cache", exit_on_error=False)
    def measure(self) -> None:
        """Look at everything; the screen hears of it a few times a second."""
        from quantui.domain.caches.items import CacheItem
        from quantui.runtime.caches.inventory import cache_disks
        from quantui.runtime.caches.scan_process import scan_beside

        worker = get_current_worker()
        items: dict[str, CacheItem] = {}
        problems: list[ScanProblem] = []
        disks: tuple[CacheDisk, ...] = ()
        told = 0.0

        def tell(*, done: bool = False) -> None:
            self.post_message(self.Scanned(dict(items), tuple(problems), disks, done=done))

        with giving_way():
            for found in scan_beside(stop=lambda: worker.is_cancelled):
                if isinstance(found, CacheItem):
                    items[found.path] = found
                else:
                    problems.append(found)
                if time.monotonic() - told >= _TELL_EVERY_S:
                    tell()
                    if not told:
                        # Not before the first rows: it reads the settings.
                        disks = cache_disks()
                        self._look_around()
                    told = time.monotonic()
        if not worker.is_cancelled:
            if not told:
                disks = cache_disks()
                self._look_around()
            tell(done=True)

    def _look_around(self) -> None:
        from quantui.runtime.caches.roots import known_roots
        from quantui.runtime.settings import read_settings

        roots = {str(root.path): root.name for root in known_roots()}
        try:
            self.post_message(self.Surroundings(roots, read_settings().cache.budget))
        except QuantuiError as error:
            self.post_message(self.Surroundings(roots, None, error))

    def on_cache_scan_surroundings(self, message: Surroundings) -> None:
        """Keep them; they are drawn with what comes next."""
        self.kept.roots, self.kept.budget = message.roots, message.budget
        self.tell(message.error)

    def on_cache_scan_scanned(self, message: Scanned) -> None:
        """Keep what was found."""
        kept = self.kept
        kept.found(message.items, done=message.done)
        kept.problems = message.problems
        kept.disks = message.disks or kept.disks
        self.done = message.done
        self.scanned()

    def show_again(self) -> None:
        """Draw what is known now."""
        raise NotImplementedError

    def scanned(self) -> None:
        """More was found."""
        raise NotImplementedError

    def action_refresh(self) -> None:
        """Look at everything again; the selection stays."""
        self.done = False
        self.measure()
        self.show_again()
