"""A bug in the small work that a screen has done in a thread: it is told, and the wizard goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.worker import WorkerState

from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from textual.app import App
    from textual.message_pump import MessagePump
    from textual.worker import Worker


class TellsBugs:
    """For a screen or widget with workers that do not end the app: without it nobody hears of what they raise."""

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """What a worker raised is a defect: kept in a file, and told."""
        error = event.worker.error
        if event.state is WorkerState.ERROR and error is not None:
            tell_bug(cast("MessagePump", self).app, error)


def tell_bug(app: App[object], error: BaseException) -> None:
    """Keep the traceback of ``error`` and say where it is."""
    from quantui.runtime.defects import defect

    told = defect(error)
    app.notify(
        f"{one_line(told.why)} {told.fix}",
        title=one_line(told.what)[:300],
        severity="error",
        timeout=15,
        markup=False,
    )
