"""A run for a caller who waits: its results, or its error raised."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import RunEvent, RunFinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.domain.plan import Plan


def run_to_end(
    plan: Plan, on_event: Callable[[RunEvent], object] | None
) -> dict[str, dict[str, object]]:
    """The results of the plan's steps, by step; ``on_event`` is called in this thread.

    The run has a thread of its own: a KeyboardInterrupt then never lands in the middle of starting or
    stopping a process, but here, where it becomes a cancel.
    """
    from quantui.runtime.runner import Runner

    cancel = Event()
    with os_errors():
        runner = Runner(plan, cancel, hold_server=False)
    events: SimpleQueue[RunEvent | None] = SimpleQueue()

    def work() -> None:
        try:
            for event in runner.run():
                events.put(event)
        finally:
            events.put(None)

    error: dict[str, object] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="quantui-run") as pool:
        try:
            running = pool.submit(work)
            while (event := events.get()) is not None:
                if isinstance(event, RunFinished):
                    error = event.error
                if on_event is not None:
                    on_event(event)
        except BaseException:
            cancel.set()
            raise
    running.result()
    if error is not None:
        raise QuantuiError.from_dict(error)
    return runner.results


@contextmanager
def os_errors() -> Iterator[None]:
    """An OSError of the block as a QuantuiError."""
    try:
        yield
    except OSError as error:
        raise QuantuiError(
            "api.os-error",
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            fix="See that the folder exists and may be read and written.",
            exit_code=ExitCode.DOES_NOT_FIT,
        ) from error
