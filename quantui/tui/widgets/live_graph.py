"""The memory of this machine as it is now, whoever uses it: a graph that samples while it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.tui.live_memory import LiveMemory
from quantui.tui.memory_history import HOST_RAM
from quantui.tui.widgets.memory_graph import MemoryGraph

if TYPE_CHECKING:
    from quantui.domain.hardware import HardwareReport


class LiveGraph(MemoryGraph):
    """Hidden, and sampling nothing, until :meth:`follow` is called; its thread ends with it."""

    DEFAULT_CSS = """
    LiveGraph { display: none; }
    LiveGraph.-there { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = LiveMemory()

    def follow(self, report: HardwareReport, index: int | None) -> None:
        """Show a GPU by its index, None: the RAM. ``report`` is of this machine and knows the totals."""
        self.live.start()
        self.add_class("-there")
        gpu = next((gpu for gpu in report.gpus if gpu.index == index), None)
        if gpu is None or gpu.unified_memory:
            self.show(self.live.history, HOST_RAM, total=report.host.ram_total_bytes)
        else:
            self.show(self.live.history, gpu.index, total=gpu.total_bytes)

    def on_unmount(self) -> None:
        """Nothing is sampled for a graph that is gone."""
        self.live.close()
