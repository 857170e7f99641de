"""Pictures of commands: a recorded run of the demo, and a recommendation, as a terminal shows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from drawing import canvas
from rich.text import Text

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


def draw_recommendation() -> str:
    """The SVG of what `quantui recommend` says of a described machine: its first choice, and the table above it."""
    words = [
        "recommend",
        "Qwen2.5-7B",
        "--hardware",
        "rtx-3060.json",
        "--context",
        "16K",
        "--users",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "quantui", *words, "--offline"],
        cwd=HERE / "recommend",
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "80", "QUANTUI_HOME": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    first, _, _ = done.stdout.partition("\n\x1b[1m2  ")
    console = canvas(80)
    console.print(f"$ quantui {' '.join(words)}", soft_wrap=True)
    console.print(Text.from_ansi(first.rstrip()))
    return console.export_svg(title="quantui recommend", unique_id="recommend")


def draw_demo() -> str:
    """The SVG of the recorded run."""
    console = canvas(WIDTH)
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
