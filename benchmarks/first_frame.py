"""How long the wizard's first frame takes, beside a bare Textual app's, side by side.

    python benchmarks/first_frame.py [--rounds 10] [--markdown]

Each is started in a pseudo-terminal of 80 x 24, in turn. The first frame is there when the rail's first step (the bare
app: its only line) has been written to the terminal. Figures are medians: seconds since the start, and CPU seconds of
the process until then, which other programs on the machine change less. The first round, which compiles modules and
warms the disk cache, is not counted. The exit code is 1 where the ratio of CPU time is above the target.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from drawing.pty_screen import PtyScreen

TARGET = 1.3
"""The wizard's first frame takes at most so many times as long as a bare app's."""

QUANTUI = str(Path(sys.executable).with_name("quantui"))
BARE_APP = str(Path(__file__).with_name("drawing") / "bare_app.py")
COMMANDS = {
    "bare Textual app": ([sys.executable, BARE_APP], "a bare app"),
    "quantui": ([QUANTUI], "▸Hardware"),
}


@dataclass(frozen=True)
class Frame:
    """One start until its first frame: milliseconds."""

    elapsed_ms: float
    cpu_ms: float


def first_frame(command: list[str], text: str, environment: dict[str, str]) -> Frame:
    """Start ``command`` and wait until it has written ``text``."""
    screen = PtyScreen(command, environment)
    try:
        came = screen.until_written(text)
        return Frame((came - screen.started) * 1000, screen.cpu_s() * 1000)
    finally:
        screen.close()


def measure(rounds: int) -> dict[str, list[Frame]]:
    """Frames by name; every second round in the other order."""
    frames: dict[str, list[Frame]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="quantui-benchmark-") as folder:
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment = {
            **kept,
            "TERM": "xterm-256color",
            "PYTHONPYCACHEPREFIX": f"{folder}/compiled",
            "QUANTUI_HOME": f"{folder}/home",
        }
        for number in range(rounds + 1):
            for name in sorted(COMMANDS, reverse=number % 2 == 0):
                frame = first_frame(*COMMANDS[name], environment)
                if number:
                    frames[name].append(frame)
    return frames


def table(frames: dict[str, list[Frame]], *, markdown: bool) -> list[str]:
    """A line for each: medians and spreads."""
    rows = [("", "first frame, ms", "least", "most", "CPU until then, ms", "least", "most")]
    for name, found in frames.items():
        figures = []
        for values in ([f.elapsed_ms for f in found], [f.cpu_ms for f in found]):
            figures += [statistics.median(values), min(values), max(values)]
        rows.append((name, *(f"{figure:.0f}" for figure in figures)))
    if markdown:
        rows.insert(1, ("---", *("---:",) * 6))
        return [f"| {' | '.join(row)} |" for row in rows]
    return [f"{row[0]:<18}" + "".join(f"{cell:>20}" for cell in row[1:]) for row in rows]


def main() -> int:
    """Print the table; 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="default: 10")
    parser.add_argument("--markdown", action="store_true", help="a table to keep")
    arguments = parser.parse_args()
    frames = measure(arguments.rounds)
    print(*table(frames, markdown=arguments.markdown), sep="\n")
    bare, ours = (frames[name] for name in COMMANDS)
    elapsed, cpu = (
        statistics.median(getattr(f, figure) for f in ours)
        / statistics.median(getattr(f, figure) for f in bare)
        for figure in ("elapsed_ms", "cpu_ms")
    )
    verdict = "kept" if cpu <= TARGET else "MISSED"
    print(f"target {verdict}: CPU ratio {cpu:.2f}, at most {TARGET}; elapsed ratio {elapsed:.2f}")
    return 0 if cpu <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
