"""A run as the wizard sees it: its state, folded from events, and the history of its memory."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from quantui.domain.events import MemorySample
from quantui.domain.formatting import format_bytes
from quantui.domain.run_state import RunState, reduce
from quantui.tui.memory_history import MemoryHistory

if TYPE_CHECKING:
    from quantui.domain.draft import Draft
    from quantui.domain.events import RunEvent
    from quantui.domain.plan import Plan
    from quantui.engines.planning import Facts
    from quantui.runtime.freed import Held
    from quantui.runtime.hosted_run import HostedRun


class RunView:
    """One run. The follower's thread calls :meth:`heard`, the UI thread reads what it leaves.

    ``plan``, ``facts`` and ``draft`` are None for a run that somebody else started. ``detached``: it goes on when
    the wizard ends. ``before``: bytes in use on each GPU by the first sample. ``freed``: what the run still holds
    after its end; None until that was looked at. ``followed`` is set when nobody follows it any more.
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
        self.before: dict[int, int] = {}
        self.at_cancel: MemorySample | None = None
        self.freed: Held | None = None
        self.freed_at: float | None = None
        self.followed = False
        self.stop = threading.Event()
        """Set to end the following; the run goes on."""

    def heard(self, event: RunEvent) -> None:
        """Fold one event in."""
        self.state = reduce(event, self.state)
        self.memory.heard(event)
        if isinstance(event, MemorySample):
            for index, used, _ in event.gpus:
                self.before.setdefault(index, used)
        self.events += 1

    def settle(self) -> None:
        """After its end: wait until it gave its memory back, and keep what it holds then. Takes up to 20 s."""
        if self.hosted is not None and not self.living:
            from quantui.runtime.freed import wait_freed

            self.hosted.close()
            self.freed = wait_freed(self.hosted, self.before)
            self._draw_freed(self.freed)

    def _draw_freed(self, held: Held) -> None:
        """The graphs end with what is held after the run."""
        gpus = tuple(
            (index, used, self.memory.series(index).total or used)
            for index, used in held.gpus.items()
            if used is not None
        )
        self.freed_at = time.time()
        sample = MemorySample(
            at=self.freed_at, tree_bytes=held.ram_bytes, ram_available_bytes=None, gpus=gpus
        )
        self.memory.heard(sample)

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

    @property
    def ended_at(self) -> float | None:
        """When there was nothing more to see, seconds since the epoch; None while it lives."""
        if self.state.finished is None:
            return None
        return self.freed_at or self.state.finished.at

    @property
    def last_step(self) -> str:
        """The id of the step that runs, else of the last that ran: its log is the one to read."""
        begun = [step.id for step in self.state.steps if step.started is not None]
        if self.serving or (self.state.ready is not None and not self.living):
            return "serve" if self.state.step("serve") else begun[-1]
        current = self.state.current
        return current.id if current else begun[-1] if begun else "host"

    @property
    def gave_back(self) -> bool:
        """Whether it was seen that the run holds nothing any more."""
        return self.freed is not None and self.freed.gave_back(self.before)

    def freed_words(self) -> str:
        """What was given back and what is held now, by the samples; "" before that was looked at."""
        now, last = self.freed, self.at_cancel or self.state.memory
        if now is None:
            return ""
        had = (last.tree_bytes if last else None) or self.state.peak_tree_bytes
        words = [f"RAM of the run {format_bytes(now.ram_bytes) if now.ram_bytes else 0}"]
        freed = max(0, had - now.ram_bytes)
        for index, used, _ in last.gpus if last else ():
            left = now.gpus.get(index)
            words.append(
                f"GPU {index} {format_bytes(left)} (before: {format_bytes(self.before[index])})"
            )
            freed = max(freed, used - left) if left is not None else freed
        count = len(now.pids)
        words.append(f"{count or 'no'} process{'es' if count > 1 else ''} left")
        return f"freed {format_bytes(freed)}: {', '.join(words)}"

    def cancel(self) -> None:
        """Ask the run to stop; what it leaves is told by its last events."""
        self.at_cancel = self.at_cancel or self.state.memory
        self.cancelling = True
        if self.hosted is not None:
            self.hosted.cancel()
