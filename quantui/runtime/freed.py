"""Whether a run that has ended gave back what it held: its processes, their RAM, the GPUs' memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.runtime import keeper
from quantui.runtime.gpu_memory import open_gpu_memory
from quantui.runtime.process import MARK
from quantui.runtime.sampler import tree_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.runtime.hosted_run import HostedRun

_SLACK_BYTES = 256 << 20
"""Other programs' memory on a card moves by so much without anybody being to blame."""
_LOOK_S = 0.1


@dataclass(frozen=True)
class Held:
    """What a run holds: its processes' pids, their RAM in bytes, and bytes in use on each whole GPU (None: unknown)."""

    pids: tuple[int, ...]
    ram_bytes: int
    gpus: Mapping[int, int | None]

    def gave_back(self, before: Mapping[int, int]) -> bool:
        """Whether no process is left and each GPU holds no more than ``before`` the run, give or take 256 MiB."""
        return not self.pids and all(
            used is None or used <= before.get(index, used) + _SLACK_BYTES
            for index, used in self.gpus.items()
        )


def held(run_id: str) -> Held:
    """What is held now by what carries the mark of a run; takes some milliseconds, for /proc is walked."""
    pids = keeper.marked(f"{MARK}={run_id}:", prefix=True)
    with open_gpu_memory() as reader:
        gpus = {card.index: card.used_bytes for card in reader.read()}
    return Held(tuple(pids), tree_bytes(pids) or 0, gpus)


def wait_freed(run: HostedRun, before: Mapping[int, int], timeout_s: float = 20.0) -> Held:
    """Wait until a run has given everything back, ``timeout_s`` seconds at most; gives what it holds then.

    ``before``: bytes in use on each GPU before the run. A driver frees a card's memory a moment after the
    process that held it is gone.
    """
    deadline = time.monotonic() + timeout_s
    run.wait(timeout_s)
    while True:
        now = held(run.run_id)
        if now.gave_back(before) or time.monotonic() > deadline:
            return now
        time.sleep(_LOOK_S)
