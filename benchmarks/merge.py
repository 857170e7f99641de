"""The streaming merge against PEFT's default way and against `cp`, on a model made for it.

    python benchmarks/merge.py --python ENGINE/bin/python [--parameters 1.544e9] [--rounds 3] [--sweep]

Makes a Qwen2-style bfloat16 checkpoint of random weights and a LoRA adapter on every linear layer (a minute for
1.5 B; --keep keeps it for the next run with the same --dir), then lets these take turns, each in a process of its own
and into a folder of its own, the first of a round going last in the next:

- `python -c "import torch"`, which every other memory figure is compared with
- `cp -r` and `sync` (fsync) of each file copied and of the folder
- ours: merge_adapter.py under the engine's interpreter, with its proof and its fsync
- PEFT: from_pretrained, merge_and_unload, save_pretrained with as large shards; nothing makes it fsync

Before each, the model is read once, so that it comes from the page cache; what came from the disk all the same is
shown: ours writes past the page cache, so what its proof reads back of the result is among it. Merges of a tiny
model, which compile Python modules and warm libraries, come first and are not counted. The results of the first round
are compared bit by bit. --sweep measures ours and cp at several sizes instead; a size that the disk has no room for
(6 B needs 25 GB) is left out, and said to be. The exit code is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from merging import report
from merging.bench import Bench, gb, say
from merging.made_model import Shape, shape_of
from merging.measuring import FailedRunError, filesystem, processor
from merging.report import COPY, OURS, PEFT, TORCH

WORKERS = Path(__file__).resolve().parents[1] / "quantui/engines/workers"
SWEEP = (0.5e9, 1e9, 2e9, 3e9, 6e9)
NEEDED = ("torch", "transformers", "peft", "safetensors")
LOOK = f"""
import importlib.metadata, importlib.util, json, platform
found = {{n: importlib.metadata.version(n) for n in {NEEDED} if importlib.util.find_spec(n)}}
print(json.dumps({{"python": platform.python_version(), **found}}))
"""
IN_MEMORY = ("tmpfs", "ramfs")
CLONING = ("btrfs", "xfs", "zfs", "bcachefs", "overlay")


def room(place: Path, shape: Shape, options: argparse.Namespace, results: int) -> str:
    """Why the model and so many results do not fit on the disk, or nothing."""
    kept = list(place.glob(f"model-{shape.parameters / 1e9:.3f}B-*-rank-{options.rank}"))
    copies = results + (0 if kept else 1)
    needed = copies * (shape.parameters * 2 + (256 << 20))
    free = shutil.disk_usage(place).free
    if needed <= free:
        return ""
    return (
        f"{shape.parameters / 1e9:.1f} B does not fit: it needs {gb(needed)} below {place}, where "
        f"{gb(free)} are free; choose a smaller --parameters or another --dir"
    )


def one_size(bench: Bench, options: argparse.Namespace, place: Path) -> int:
    """The comparison with PEFT and cp; gives the number of targets missed."""
    shape = shape_of(options.parameters)
    # In the first round, PEFT's result and ours lie beside the copy.
    if reason := room(place, shape, options, 3 if options.rounds else 0):
        raise FailedRunError(reason)
    bench.warm_up()
    model = bench.model(shape)
    if not options.rounds:
        return 0
    runs, found = bench.rounds(model, (TORCH, COPY, OURS, PEFT))
    print(
        f"{shape.parameters / 1e9:.3f} B parameters, {gb(model.bytes)} in {model.shards} shards, "
        f"rank {options.rank} on {len(shape.linear())} linear layers; rounds: {options.rounds}\n"
    )
    other_ways(runs)
    return report.whole(runs, found)


def several_sizes(bench: Bench, options: argparse.Namespace, place: Path) -> int:
    """The sweep; gives the number of targets missed, a size left out being one."""
    points, left_out = [], 0
    bench.warm_up()
    for parameters in SWEEP:
        shape = shape_of(parameters)
        if reason := room(place, shape, options, 1):
            print(f"left out: {reason}\n")
            left_out += 1
            continue
        model = bench.model(shape)
        if options.rounds:
            runs, _ = bench.rounds(model, (TORCH, COPY, OURS))
            other_ways(runs)
            points.append(report.Point(shape.parameters, model.bytes, model.shards, runs))
        if model.folder.parent != place:
            shutil.rmtree(model.folder)
    return left_out + (report.sweep(points) if points else 0)


def other_ways(runs: report.Runs) -> None:
    """Say when what was measured as ours was not the streaming merge."""
    for done in runs[OURS]:
        if done.result.get("method", "streamed") != "streamed":
            print(f"NOT STREAMED: {done.result['method']}, {done.result.get('why_peft')}\n")
            return


def header(options: argparse.Namespace, place: Path, versions: dict[str, str]) -> None:
    """Where this is measured."""
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    kind = filesystem(place)
    load = os.getloadavg()[0]
    print(f"{processor()}; {names}; {kind}; load average {load:.1f} at the start")
    print(f"ours: {options.worker.name}, {options.workers} workers, {options.device}\n")
    if kind in IN_MEMORY:
        print(f"{place} is in memory ({kind}): fsync costs nothing there.\n")
    elif kind in CLONING:
        print(f"{kind} may clone files instead of copying them: cp may cost nothing there.\n")


def chosen_place(options: argparse.Namespace) -> Path | None:
    """--dir, or the first usual temporary folder that is on a disk; None where all are in memory."""
    if options.dir:
        place: Path = options.dir.absolute()
        place.mkdir(parents=True, exist_ok=True)
        return place
    usual = (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd())
    return next((place for place in usual if filesystem(place) not in IN_MEMORY), None)


def parsed() -> argparse.Namespace:
    """The command line; ends with 2 where it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--python", default=sys.executable, help="interpreter with torch and peft; default: this")
    add("--parameters", type=float, default=1.544e9, help="of the model; default: 1.544e9")
    add("--shards", type=int, help="files of weights; default: one for each 441 MB")
    add("--rounds", type=int, default=3, help="default: 3; 0 only makes the model")
    add("--rank", type=int, default=16, help="of the adapter; default: 16")
    add("--workers", type=int, default=2, help="of ours; default: 2")
    add("--device", default="cpu", help="of ours: cpu (default) or cuda:0")
    add("--worker", type=Path, default=WORKERS / "merge_adapter.py", help="what to call ours")
    add("--sweep", action="store_true", help="ours and cp at 0.5, 1, 2, 3 and 6 B instead")
    add("--dir", type=Path, help="where models and results go; default: a temporary folder")
    add("--keep", action="store_true", help="keep the made models in --dir, for another run")
    options = parser.parse_args()
    if not (math.isfinite(options.parameters) and 4e7 <= options.parameters <= 2e10):
        parser.error("--parameters: 4e7 to 2e10")
    for name, least in (("shards", 1), ("rounds", 0), ("rank", 1), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name}: at least {least}")
    if options.keep and not options.dir:
        parser.error("--keep: needs --dir, the folder to keep models in")
    if not options.worker.is_file():
        parser.error(f"--worker: there is no {options.worker}")
    return options


def versions_of(python: str) -> dict[str, str]:
    """What the engine holds.

    Raises:
        FailedRunError: It cannot be started, or lacks a package.
    """
    try:
        done = subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
    except OSError as error:
        raise FailedRunError(f"{python} cannot be started: {error.strerror}") from error
    except (subprocess.CalledProcessError, ValueError) as error:
        raise FailedRunError(f"{python} does not answer as a Python interpreter") from error
    if missing := [name for name in NEEDED if name not in found]:
        raise FailedRunError(
            f"{python} lacks {', '.join(missing)}; name an engine's interpreter with --python"
        )
    return found


def main() -> int:
    """Measure and print; 1 where a target is missed, 130 when interrupted."""
    options = parsed()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    folder: Path | None = None
    try:
        versions = versions_of(options.python)
        place = chosen_place(options)
        if place is None:
            raise FailedRunError("every temporary folder is in memory; name one with --dir")
        folder = Path(tempfile.mkdtemp(prefix="quantui-benchmark-", dir=place))
        header(options, place, versions)
        bench = Bench(options, place, folder)
        missed = (several_sizes if options.sweep else one_size)(bench, options, place)
        say(f"{time.monotonic() - began:.0f} s in all")
        return 1 if missed else 0
    except KeyboardInterrupt:
        say("interrupted; what was made is removed")
        return 130
    except (FailedRunError, OSError) as error:
        say(f"error: {error}")
        return 1
    finally:
        # Another interruption is not to leave gigabytes behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
