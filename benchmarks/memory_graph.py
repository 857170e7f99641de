"""CPU that the memory graph costs while it follows a device, as a share of one core.

    python benchmarks/memory_graph.py [--size 100x12] [--seconds 10] [--samples 36000] [--markdown]

The graph runs in a real app with a driver that writes nowhere. Ten samples a second come in on top of a history of
``--samples`` (36,000: an hour), with a prediction and phases. The same app, its graph showing a history that does not
grow, is the ground that is taken away. Time is user plus system time of the process (``time.process_time``).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time

from textual.app import App, ComposeResult

from quantui.domain.units import GIB
from quantui.tui.memory_history import MemoryHistory
from quantui.tui.widgets.memory_graph import MemoryGraph

TARGET_PERCENT = 2.0
"""Of one core, at ten samples a second and 100x12."""

TOTAL = 24 * GIB


class Shown(App[None]):
    """An app that shows one graph and nothing else."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.history = MemoryHistory()
        self.wanted = size

    def compose(self) -> ComposeResult:
        """One graph of the wanted size."""
        graph = MemoryGraph()
        graph.styles.width, graph.styles.height = self.wanted
        yield graph


def used(at: float) -> int:
    """A load that moves by some rows and jitters."""
    return int(TOTAL * (0.5 + 0.3 * math.sin(at / 20) + 0.02 * math.sin(at * 37)))


async def cost(size: tuple[int, int], samples: int, seconds: float, every_s: float | None) -> float:
    """CPU seconds a second while the graph is shown; ``every_s``: how often a sample comes, None: never."""
    app = Shown(size)
    series = app.history.series(0)
    begin = time.time() - samples * 0.1
    for number in range(samples):
        series.add(begin + number * 0.1, used(number * 0.1), TOTAL)
    for number, phase in enumerate(("load weights", "profile", "capture graphs", "serve")):
        app.history.mark(begin + samples * 0.1 * number / 4, phase)
    async with app.run_test(size=(size[0] + 10, size[1] + 4)) as pilot:
        app.query_one(MemoryGraph).show(app.history, 0, total=TOTAL, predicted=TOTAL // 2)
        await pilot.pause()
        before, started = time.process_time(), time.monotonic()
        number = samples
        while (now := time.monotonic()) - started < seconds:
            if every_s is not None:
                series.add(begin + number * 0.1, used(number * 0.1), TOTAL)
                number += 1
            await asyncio.sleep(max((every_s or 0.1) - (time.monotonic() - now), 0.0))
        return (time.process_time() - before) / (time.monotonic() - started)


def main() -> None:
    """Measure and print the share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", default="100x12", help="columns x rows")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is watched")
    parser.add_argument("--samples", type=int, default=36_000, help="samples before it begins")
    parser.add_argument("--markdown", action="store_true", help="print a row of a table")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    still = asyncio.run(cost((width, height), args.samples, args.seconds, None))
    moving = asyncio.run(cost((width, height), args.samples, args.seconds, 0.1))
    share = 100 * (moving - still)
    verdict = "within" if share <= TARGET_PERCENT else "above"
    if args.markdown:
        print(f"| {args.size} | {args.samples} | {share:.2f} % | {100 * still:.2f} % |")
    else:
        print(f"{args.size}, {args.samples} samples, 10 samples a second: {share:.2f} % of a core")
        print(
            f"({verdict} the {TARGET_PERCENT:g} % aimed at; the app by itself took {100 * still:.2f} %)"
        )


if __name__ == "__main__":
    main()
