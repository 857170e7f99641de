"""Draw the README's pictures from a recorded run, with the code that prints a live one.

    python screenshots/make.py                    redraw from screenshots/demo/
    python screenshots/make.py RUN_FOLDER DEMO    record anew: a run's folder and the demo model's folder

The pictures are the same from run to run. PNGs need `resvg_py` and the font Fira Code.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from quantui.cli.demo import tell
from quantui.cli.output import say
from quantui.domain.events import from_dict
from quantui.domain.run_state import RunState, reduce
from quantui.headless import describe, measurements, print_line

HERE = Path(__file__).parent
RECORD = HERE / "demo"
WIDTH = 100
PLACE = "/home/you/.local/share/quantui"


def record(run: Path, demo: Path) -> None:
    """Keep what the picture needs of a run; the folders of the machine it was made on are renamed."""
    RECORD.mkdir(exist_ok=True)
    home = str(demo.parent.parent)
    kept = []
    for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["type"] not in {"memory", "step.progress"}:
            kept.append(line.replace(home, PLACE))
        elif event["type"] == "memory":
            memory = line
    # One sample stands for the peak that the run's last line tells.
    peak = max(
        json.loads(line)["tree_bytes"] or 0
        for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
        if json.loads(line)["type"] == "memory"
    )
    kept.insert(-1, json.dumps({**json.loads(memory), "tree_bytes": peak}))
    (RECORD / "events.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    facts = json.loads((demo / "demo.json").read_text(encoding="utf-8"))
    (RECORD / "demo.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def draw() -> str:
    """The SVG of the recorded run."""
    console = Console(
        record=True,
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        markup=False,
        highlight=False,
        emoji=False,
        file=io.StringIO(),
    )
    console.print("$ quantui demo")
    state = RunState()
    for line in (RECORD / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = from_dict(json.loads(line))
        state = reduce(event, state)
        for text in describe(event, state):
            print_line(console, text)
    for text in measurements(state):
        say(console, "  " + text)
    facts = json.loads((RECORD / "demo.json").read_text(encoding="utf-8"))
    tell(console, facts, state, Path("demo.toml"))
    return console.export_svg(title="quantui demo", unique_id="quantui")


def main() -> None:
    """Record if asked to, then draw."""
    if len(sys.argv) == 3:
        record(Path(sys.argv[1]), Path(sys.argv[2]))
    svg = draw()
    (HERE / "demo.svg").write_text(svg, encoding="utf-8")
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, font_dirs=["/usr/share/fonts"], zoom=1.0)
    (HERE / "demo.png").write_bytes(bytes(png))


if __name__ == "__main__":
    main()
