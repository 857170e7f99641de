"""What the steps of one run share: its folder, the cancel flag, the sampler and the living processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.runtime.process_tree import ProcessTree
from quantui.runtime.sampler import MemorySampler

if TYPE_CHECKING:
    import threading

    from quantui.domain.events import MemorySample
    from quantui.runtime.process import KeptProcess
    from quantui.runtime.recorder import RunFolder


class RunContext:
    """State of one run; used by the run's thread, read by the sampler's."""

    def __init__(self, folder: RunFolder, cancel: threading.Event) -> None:
        self.folder = folder
        self._cancel = cancel
        self._processes: tuple[KeptProcess, ...] = ()
        self._tree = ProcessTree()
        self._sampler = MemorySampler(self._pids)
        self.peak_tree_bytes = 0
        self.server_tree_bytes = 0
        self._gpu_bytes: dict[int, int] = {}
        self._gpu_before: dict[int, int] = {}

    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self._cancel.is_set()

    def watch(self, process: KeptProcess) -> None:
        """Count a process's memory as the run's."""
        self._processes = (*self._processes, process)

    def unwatch(self, process: KeptProcess) -> None:
        """Forget a process that is gone."""
        self._processes = tuple(other for other in self._processes if other is not process)

    def samples(self) -> list[MemorySample]:
        """Memory samples since the last call."""
        drained = self._sampler.drain()
        for sample in drained:
            self.peak_tree_bytes = max(self.peak_tree_bytes, sample.tree_bytes or 0)
            self.server_tree_bytes = sample.tree_bytes or self.server_tree_bytes
            for index, used, _ in sample.gpus:
                self._gpu_bytes[index] = used
                self._gpu_before.setdefault(index, used)
        return drained

    def before_server(self) -> None:
        """What the GPUs hold from now on is counted as the server's; see :meth:`gpu_growth`."""
        self._gpu_before = dict(self._gpu_bytes)
        self.server_tree_bytes = 0

    def gpu_growth(self) -> dict[int, int]:
        """GPU index -> bytes in use by the last sample beyond those before the server."""
        return {index: used - self._gpu_before[index] for index, used in self._gpu_bytes.items()}

    def start(self) -> None:
        """Begin sampling."""
        self._sampler.start()

    def sampling_cpu_seconds(self) -> float:
        """CPU time that sampling has taken so far."""
        return self._sampler.cpu_seconds()

    def close(self) -> None:
        """End sampling, and whatever still runs."""
        for process in self._processes:
            process.close()
        self._sampler.close()

    def _pids(self) -> list[int]:
        return self._tree.below(process.keeper_pid for process in self._processes)
