"""A run as the wizard sees it: its state, folded from events, and the history of its memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from quantui.domain.run_state import RunState, reduce
from quantui.tui.memory_history import MemoryHistory

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.events import RunEvent
    from quantui.domain.plan import Plan
    from quantui.engines.planning import Facts
    from quantui.runtime.hosted_run import HostedRun


class RunView:
    """One run. The follower's thread calls :meth:`heard`, the UI thread reads what it leaves.

    ``plan``, ``facts`` and ``draft`` are None for a run that somebody else started. ``detached``: it goes on when
    the wizard ends.
    """

    def __init__(
        self, plan: Plan | None = None, facts: Facts | None = None, draft: Draft | None = None
    ) -> None:
        self.plan = plan
        self.facts = facts
        self.draft = draft
        self.hosted: HostedRun | None = None
        self.state = RunState()
        self.memory = MemoryHistory()
        self.events = 0
        self.detached = False
        self.cancelling = False
        self.stop = threading.Event()
        """Set to end the following; the run goes on."""

    def heard(self, event: RunEvent) -> None:
        """Fold one event in."""
        self.state = reduce(event, self.state)
        self.memory.heard(event)
        self.events += 1

    @property
    def living(self) -> bool:
        """Whether the run has not ended yet."""
        return self.state.finished is None

    @property
    def serving(self) -> bool:
        """Whether its server is up and every step is done: what is left is to use it."""
        steps = self.state.steps
        done = bool(steps) and all(step.status in ("done", "reused") for step in steps)
        return self.living and self.state.ready is not None and done

    @property
    def outcome(self) -> str:
        """``ok``, ``failed`` or ``cancelled``; "" while it lives."""
        return "" if self.state.finished is None else self.state.finished.outcome

    def cancel(self) -> None:
        """Ask the run to stop; what it leaves is told by its last events."""
        self.cancelling = True
        if self.hosted is not None:
            self.hosted.cancel()
