"""A large Hub cache listed: first rows and the whole inventory of quantui, against `hf cache ls` on the same tree.

    python benchmarks/cache_scan.py [--rounds 5] [--folder DIR] [--markdown]

A made cache (300 repositories, 100,000 blobs, 500 GB of sparse files, a second revision in every third) is scanned in
turn by both, as commands and within a process; both begin with a warm page cache. A figure is the median of the rounds.
DIR holds the cache while this runs (about 0.6 GB on ext4); made and deleted here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET_FIRST_MS = 200.0
"""Milliseconds from the call of the inventory until its first rows are there."""
TARGET_RATIO = 3.0
"""How many times as long as the inventory `hf cache ls` takes."""

ROWS = 10
"""How many rows count as the first ones."""

_BESIDE = Path(sys.executable)
QUANTUI = [str(_BESIDE.with_name("quantui")), "cache", "ls"]
HF = [str(_BESIDE.with_name("hf")), "cache", "ls"]

_SCAN = """
import json, sys, time
begun = time.time()
from quantui.runtime.caches.inventory import scan
called, rows = time.time(), []
for found in scan():
    if len(rows) < ROWS:
        rows.append(time.time())
print(json.dumps({
    "first": (rows[0] - called) * 1000, "rows": (rows[-1] - called) * 1000, "all": (time.time() - called) * 1000,
    "first from the start of the process": (rows[0] - float(sys.argv[1])) * 1000,
}))
""".replace("ROWS", str(ROWS))
_OURS = """
import json, os, sys, time
from quantui.domain.caches.items import Kind
from quantui.runtime.caches.hub_scan import hub_items
begun, cpu = time.perf_counter(), time.process_time()
found = list(hub_items(sys.argv[1]))
ended = {"wall": (time.perf_counter() - begun) * 1000, "cpu": (time.process_time() - cpu) * 1000}
sizes = {item.path: item.use.apparent for item in found if item.kind is Kind.HUB}
print(json.dumps({**ended, "sizes": sizes}))
"""
_THEIRS = """
import json, os, sys, time
from huggingface_hub import scan_cache_dir
begun, cpu = time.perf_counter(), time.process_time()
found = scan_cache_dir(sys.argv[1])
ended = {"wall": (time.perf_counter() - begun) * 1000, "cpu": (time.process_time() - cpu) * 1000}
sizes = {str(repo.repo_path): repo.size_on_disk for repo in found.repos}
print(json.dumps({**ended, "sizes": sizes, "total": found.size_on_disk}))
"""


def environment(folder: Path) -> dict[str, str]:
    """One in which the made cache is the only thing that takes the disk, and nothing asks the network."""
    drop = ("HF_", "HUGGINGFACE_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    nothing = str(folder / "nothing")
    return {
        **kept,
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HOME": nothing,
        "QUANTUI_HOME": str(folder / "quantui"),
        "TORCHINDUCTOR_CACHE_DIR": nothing,
        "UV_CACHE_DIR": nothing,
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
    }


def command_ms(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Milliseconds of wall clock and of CPU that a command takes."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit status {process.returncode}")
    return (time.perf_counter() - begun) * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def answer(program: str, argument: str, env: dict[str, str]):
    """What a program, run in a process of its own, says in JSON."""
    told = subprocess.run(
        [sys.executable, "-c", program, argument],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds by what was measured, all in turn; a first round, which warms the caches, is not counted."""
    env, root = environment(folder), str(folder / "hub")
    figures: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        taken: dict[str, float] = {}
        for name, command in (("quantui cache ls", QUANTUI), ("hf cache ls", HF)):
            taken[name], taken[f"{name}, CPU"] = command_ms(command, env)
        ours, theirs = answer(_OURS, root, env), answer(_THEIRS, root, env)
        for name, one in (("hub_items", ours), ("scan_cache_dir", theirs)):
            taken[name], taken[f"{name}, CPU"] = one["wall"], one["cpu"]
        if ours["sizes"] != theirs["sizes"] or sum(ours["sizes"].values()) != theirs["total"]:
            sys.exit("the sizes differ")
        shown = answer(_SCAN, str(time.time()), env)
        taken["first row"], taken[f"first {ROWS} rows"] = shown["first"], shown["rows"]
        taken["whole inventory"] = shown["all"]
        taken["first row, from the start of a process"] = shown[
            "first from the start of the process"
        ]
        if number:
            for name, value in taken.items():
                figures.setdefault(name, []).append(value)
    return figures


def table(figures: dict[str, list[float]], *, markdown: bool) -> list[str]:
    """One line a figure: median and spread."""
    rows = [
        (
            name,
            f"{statistics.median(values):,.0f}",
            f"{min(values):,.0f}",
            f"{max(values):,.0f}",
        )
        for name, values in figures.items()
    ]
    head = ("", "ms", "least", "most")
    if markdown:
        return [f"| {' | '.join(row)} |" for row in (head, ("---", *["---:"] * 3), *rows)]
    width = max(len(name) for name in figures)
    return [
        f"{row[0]:<{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in (head, *rows)
    ]


def verdicts(figures: dict[str, list[float]]) -> list[tuple[bool, str]]:
    """Each target with whether it is kept."""
    median = {name: statistics.median(values) for name, values in figures.items()}
    first = median[f"first {ROWS} rows"]
    found = [
        (first <= TARGET_FIRST_MS, f"first {ROWS} rows after {first:.0f} ms, at most 200"),
    ]
    for ours, theirs in (("quantui cache ls", "hf cache ls"), ("hub_items", "scan_cache_dir")):
        ratio = median[theirs] / median[ours]
        cpu = median[f"{theirs}, CPU"] / median[f"{ours}, CPU"]
        words = f"{theirs} takes {ratio:.1f} x as long as {ours} ({cpu:.1f} x the CPU), at least 3"
        found.append((ratio >= TARGET_RATIO, words))
    return found


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--folder", help="where the cache is made; default: the temporary folder")
    parser.add_argument("--markdown", action="store_true", help="a table to keep")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from fixtures.made_caches import make_cache

    with tempfile.TemporaryDirectory(prefix="quantui-cache-", dir=arguments.folder) as name:
        folder = Path(name)
        make_cache(folder / "hub", repositories=300, files=100_000, total=500 * 10**9)
        figures = measure(folder, arguments.rounds)
    print(*table(figures, markdown=arguments.markdown), sep="\n")
    print("sizes: equal, of every repository and in all")
    missed = 0
    for kept, words in verdicts(figures):
        missed += not kept
        print(f"target {'kept' if kept else 'MISSED'}: {words}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
