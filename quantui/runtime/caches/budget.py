"""Whether the caches are over the budget of the settings, looked up beside other work and never waited for long."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from quantui.domain.caches.budget import budget_hint
from quantui.domain.caches.pruning import PruneRules
from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from quantui.runtime.caches.inventory import Inventory

_DAY = 86400.0


class BudgetWatch:
    """Looks at the caches in a thread of its own; costs one small file where no budget is set."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._hint = ""
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start to look, if the settings say what to compare with. A look under way is left to it."""
        rules = budget_rules()
        if rules is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._look, args=(rules,), name="budget", daemon=True
        )
        self._thread.start()

    def hint(self, within_s: float) -> str:
        """The line to say; "" when all is well, or when the look is not done ``within_s`` seconds from now."""
        if self._thread is None:
            return ""
        self._thread.join(within_s)
        self._stop.set()
        return "" if self._thread.is_alive() else self._hint

    def _look(self, rules: PruneRules) -> None:
        from quantui.runtime.caches.inventory import collect

        # A folder that cannot be read is no reason to say anything here.
        with contextlib.suppress(OSError):
            found = collect(stop=self._stop.is_set)
            self._hint = "" if self._stop.is_set() else hint_for(found, rules)


def budget_rules() -> PruneRules | None:
    """What the settings ask for; None where they ask for nothing, or cannot be read (`quantui cache` says why)."""
    from quantui.runtime.settings import read_settings

    try:
        settings = read_settings().cache
    except QuantuiError:
        return None
    if settings.budget is None and settings.keep_free is None:
        return None
    return PruneRules(
        budget=settings.budget,
        keep_free=settings.keep_free,
        trash_older_than=settings.trash_days * _DAY,
    )


def hint_for(found: Inventory, rules: PruneRules) -> str:
    """The line for what was found; "" when all is well."""
    return budget_hint(found.items, rules, now=time.time(), disks=found.disks)
