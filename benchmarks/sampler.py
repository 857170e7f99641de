"""What the memory sampler costs: its thread's CPU time as a share of one core.

    python benchmarks/sampler.py [--seconds 10] [--processes 5] [--others 500]

Under a keeper stands a tree of so many processes, each with about the threads vLLM's have; beside it so many
strangers, as on a busy server. The sampler runs as a run has it. The first second (NVML, the first look at /proc) is
not counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from quantui.runtime.process import KeptProcess
from quantui.runtime.recorder import RunFolder
from quantui.runtime.run_context import RunContext

TARGET = 0.02
"""The sampler may take so much of one core."""

_TREE = """
import subprocess, sys, threading, time
below, threads = int(sys.argv[1]), int(sys.argv[2])
for _ in range(below):
    subprocess.Popen([sys.executable, "-c", sys.argv[3], "0", str(threads), ""])
for _ in range(threads):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
time.sleep(3600)
"""


def main() -> int:
    """Measure, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--threads", type=int, default=60)
    args = parser.parse_args()
    strangers = [
        subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL) for _ in range(args.others)
    ]
    with tempfile.TemporaryDirectory() as folder:
        context = RunContext(RunFolder("benchmark", Path(folder)), threading.Event())
        process = KeptProcess(
            [sys.executable, "-c", _TREE, str(args.processes - 1), str(args.threads), _TREE],
            run_id=f"benchmark-{time.time_ns()}",
            name="tree",
            log=Path(folder, "tree.log"),
        )
        try:
            while len(process.pids()) < args.processes:
                time.sleep(0.1)
            context.watch(process)
            context.start()
            time.sleep(1.0)
            context.samples()
            before, started = context.sampling_cpu_seconds(), time.monotonic()
            time.sleep(args.seconds)
            used, wall = context.sampling_cpu_seconds() - before, time.monotonic() - started
            samples = context.samples()
        finally:
            context.close()
            for stranger in strangers:
                stranger.kill()
                stranger.wait()
    share = used / wall
    last = samples[-1]
    print(f"tree       {args.processes} processes of {args.threads} threads, {args.others} others")
    print(f"samples    {len(samples) / wall:.1f} a second, {len(last.gpus)} GPUs in each")
    print(f"CPU        {used / len(samples) * 1e3:.2f} ms a sample, {share:.2%} of one core")
    print(f"target     {TARGET:.0%}: {'met' if share <= TARGET else 'MISSED'}")
    return 0 if share <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
