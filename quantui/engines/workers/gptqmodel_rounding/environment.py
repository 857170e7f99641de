"""Settings that GPTQModel reads from the environment when it is imported."""

from __future__ import annotations

import os


def prepare() -> None:
    """Set what keeps GPTQModel quiet and to itself; what the user has set stays."""
    for name, value in _settings().items():
        os.environ.setdefault(name, value)


def _settings() -> dict[str, str]:
    return {
        # Its threads are half the machine's cores, though half the time they only wait for each other.
        "GPTQMODEL_CPU_WORKERS": str(len(os.sched_getaffinity(0))),
        # Else it compiles a C++ file for half a minute, if there is a compiler, to pack some seconds faster.
        "GPTQMODEL_DISABLE_PACK_EXT": "1",
        "GPTQMODEL_DISABLE_GIL_WARNING": "1",
        # A log shows no moving bars.
        "LOGBAR_ANIMATION": "0",
        "LOGBAR_PROGRESS_OUTPUT_INTERVAL": "1000000",
    }
