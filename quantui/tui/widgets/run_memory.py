"""The memory of a run as graphs: one for each of its GPUs, else one of its processes' RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical

from quantui.tui.memory_history import RAM
from quantui.tui.widgets.memory_graph import MemoryGraph
from quantui.tui.widgets.told import Told

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from quantui.tui.run_view import RunView

_LEAST_ROWS = 5
"""A graph with its caption that is lower tells nothing."""
_MOST = 4


def devices_of(view: RunView) -> tuple[str | int, ...]:
    """What the run is watched on: its GPUs by index, or :data:`RAM`.

    Of a run that somebody else began only the samples are known: the GPUs that were sampled, if any.
    """
    sampled = tuple(sorted(view.before))
    plan = view.plan
    if plan is None:
        return (*sampled, RAM)
    if plan.engine.on_cpu:
        return (RAM,)
    chosen = plan.draft.serve.visible_devices
    return (*(key for key in sampled if not chosen or key in chosen), RAM)


def predicted_of(view: RunView, key: str | int) -> int | None:
    """Bytes that the estimate expects in use on a device while it serves; others' memory on a card is part of it."""
    plan = view.plan
    if plan is None or (key == RAM) != plan.engine.on_cpu:
        return None
    others = plan.estimate.fit.others.bytes if plan.estimate.fit and key != RAM else 0
    return plan.estimate.total_bytes + others


def lost_gpus(view: RunView) -> tuple[int, ...]:
    """GPUs that were sampled once and are not any more."""
    newest = view.state.memory
    if newest is None or not view.living:
        return ()
    here = {index for index, _, _ in newest.gpus}
    return tuple(index for index in view.before if index not in here)


class RunMemory(Vertical):
    """As many graphs as there is room for; `g` shows the next devices where there are more."""

    DEFAULT_CSS = """
    RunMemory { height: 1fr; min-height: 6; }
    RunMemory MemoryGraph { height: 1fr; }
    RunMemory Told { color: $text-warning; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._first = 0
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        """A line for what cannot be drawn, then the graphs."""
        yield Told(id="lost")
        for number in range(_MOST):
            yield MemoryGraph(id=f"graph-{number}")

    def on_resize(self) -> None:
        """As many graphs as there is room for now."""
        if self._view is not None:
            self.show(self._view)

    def more(self, view: RunView) -> bool:
        """Whether `g` has anything to show."""
        return len(devices_of(view)) > self._room()

    def turn(self, view: RunView) -> None:
        """Show the next devices."""
        self._first = (self._first + self._room()) % max(1, len(devices_of(view)))
        self.show(view)

    def _room(self) -> int:
        return max(1, min(_MOST, self.size.height // _LEAST_ROWS))

    def show(self, view: RunView) -> None:
        """Draw the newest samples."""
        self._view = view
        if not self.is_mounted:
            return
        devices = devices_of(view)
        first = self._first if self._first < len(devices) else 0
        shown = devices[first : first + self._room()]
        begin = view.state.started
        for number, graph in enumerate(self.query(MemoryGraph)):
            graph.display = number < len(shown)
            if number < len(shown):
                key = shown[number]
                total = view.memory.ram_total if key == RAM else view.memory.series(key).total
                graph.show(
                    view.memory,
                    key,
                    total=total,
                    predicted=predicted_of(view, key),
                    begin=begin,
                    end=view.ended_at,
                )
        lost = [
            f"GPU {index} is lost: NVML reads nothing of it any more" for index in lost_gpus(view)
        ]
        hidden = len(devices) - len(shown)
        if hidden:
            lost.append(f"{hidden} more: g")
        self.query_one("#lost", Told).tell(" · ".join(lost))
