"""CPU time of starting quantui, against the bare interpreter's own.

    python benchmarks/startup.py [--rounds 15] [--markdown]

Each command runs once a round, in turn, so that a machine that grows slower slows all of them. A figure is user plus
system time of the process and the children it waited for (``os.wait4``), the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET_MS = 150.0
"""Milliseconds of CPU that `import quantui` and `quantui --help` may take beyond the interpreter."""

QUANTUI = str(Path(sys.executable).with_name("quantui"))
"""The command as it is installed beside this interpreter."""

BARE = "python -c pass"
COMMANDS: dict[str, list[str]] = {
    BARE: [sys.executable, "-c", "pass"],
    "python -c 'import quantui'": [sys.executable, "-c", "import quantui"],
    "python -c 'from quantui import prepare_model_for_vllm'": [
        sys.executable,
        "-c",
        "from quantui import prepare_model_for_vllm",
    ],
    "quantui --help": [QUANTUI, "--help"],
    "quantui --version": [QUANTUI, "--version"],
    "quantui doctor --json": [QUANTUI, "doctor", "--json"],
}
HELD_TO_TARGET = ("python -c 'import quantui'", "quantui --help")


def environment(folder: str) -> dict[str, str]:
    """This one with compiled modules kept in ``folder``: as on a machine where quantui ran before."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": folder}


def cpu_ms(command: list[str], env: dict[str, str]) -> float:
    """Milliseconds of CPU that ``command`` and what it waited for took."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit status {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure(rounds: int) -> dict[str, list[float]]:
    """Milliseconds by command; a first round, which compiles and warms the disk cache, is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="quantui-benchmark-") as folder:
        env = environment(folder)
        for number in range(rounds + 1):
            for name, command in COMMANDS.items():
                spent = cpu_ms(command, env)
                if number:
                    figures[name].append(spent)
    return figures


def table(figures: dict[str, list[float]], *, markdown: bool) -> list[str]:
    """One line a command: median, spread, and what is beyond the bare interpreter."""
    bare = statistics.median(figures[BARE])
    head = ("command", "CPU, ms", "least", "most", "beyond bare, ms", "ratio")
    rows = [
        (
            name,
            f"{statistics.median(values):.0f}",
            f"{min(values):.0f}",
            f"{max(values):.0f}",
            f"{statistics.median(values) - bare:+.0f}",
            f"{statistics.median(values) / bare:.1f}",
        )
        for name, values in figures.items()
    ]
    if markdown:
        return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    width = max(len(name) for name in figures)
    return [
        f"{row[0]:<{width}}" + "".join(f"{cell:>17}" for cell in row[1:]) for row in (head, *rows)
    ]


def main() -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--markdown", action="store_true", help="a table to keep")
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    print(*table(figures, markdown=arguments.markdown), sep="\n")
    bare = statistics.median(figures[BARE])
    missed = 0
    for name in HELD_TO_TARGET:
        beyond = statistics.median(figures[name]) - bare
        kept = beyond <= TARGET_MS
        missed += not kept
        verdict = "kept" if kept else "MISSED"
        print(f"target {verdict}: {name} {beyond:.0f} ms beyond bare, at most {TARGET_MS:.0f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
