"""The same work tried on one device after another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from quantui.domain.errors import QuantuiError
from quantui.domain.events import RunEvent, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

_T = TypeVar("_T")

NEXT_DEVICE = frozenset(
    {
        "merge.not-enough-memory",
        "merge.no-gpu",
        "quantize.not-enough-memory",
        "quantize.no-gpu",
        "worker.out-of-memory",
        "worker.died",
    }
)
"""Errors that another device may not have."""


def over_devices(
    step: str,
    devices: Sequence[str],
    attempt: Callable[[str], Generator[RunEvent, None, _T]],
) -> Generator[RunEvent, None, _T]:
    """What ``attempt`` gives on the first device that can; the last device's error is raised."""
    for device in devices[:-1]:
        try:
            return (yield from attempt(device))
        except QuantuiError as error:
            if error.code not in NEXT_DEVICE:
                raise
            yield StepFailed(at=time.time(), step=step, error=error.to_dict(), final=False)
    return (yield from attempt(devices[-1]))
