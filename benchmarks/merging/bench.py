"""The programs that take turns in `benchmarks/merge.py`: import torch, cp, the streaming merge and PEFT's way."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging import report
from merging.made_model import TINY, Shape, limit_for, sharded
from merging.measuring import Run, run, warm
from merging.report import COPY, OURS, PEFT, TORCH

if TYPE_CHECKING:
    import argparse

PROGRAMS = Path(__file__).resolve().parent
SHARD_BYTES = 4.41e8
"""Bytes of a shard where their number is not given: 7 shards at 1.5 B."""
COPYING = 'cp -r "$1" "$2" && sync "$2"/* "$2"'


def gb(size: float) -> str:
    """Bytes as decimal gigabytes."""
    return f"{size / 1e9:.2f} GB"


@dataclass(frozen=True)
class Model:
    """A made checkpoint with its adapter."""

    folder: Path
    shape: Shape
    limit: int

    @property
    def base(self) -> Path:
        """The checkpoint's folder."""
        return self.folder / "base"

    @property
    def adapter(self) -> Path:
        """The adapter's folder."""
        return self.folder / "adapter"

    @property
    def bytes(self) -> int:
        """Of the base's weights."""
        return self.shape.parameters * 2

    @property
    def shards(self) -> int:
        """How many files the weights are in."""
        return len(sharded(self.shape.tensors(), self.limit))


class Bench:
    """The programs that take turns, on one engine, below one folder."""

    def __init__(self, options: argparse.Namespace, place: Path, folder: Path) -> None:
        self._options = options
        self._place = place
        self._folder = folder
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        pycache = str(folder / "pycache")
        self._env = {**kept, "PYTHONPYCACHEPREFIX": pycache, "HF_HUB_OFFLINE": "1"}

    def _run(self, *command: object) -> Run:
        return run([str(word) for word in command], self._env, self._folder / "log")

    def _job(self, **job: object) -> Path:
        path = self._folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        return path

    def model(self, shape: Shape, *, tiny: bool = False) -> Model:
        """The model of this shape: the one kept here before, or a new one."""
        options = self._options
        shards = 1 if tiny else options.shards
        shards = shards or max(1, round(shape.parameters * 2 / SHARD_BYTES))
        limit = limit_for(shape.tensors(), shards)
        name = f"model-{shape.parameters / 1e9:.3f}B-{shards}-shards-rank-{options.rank}"
        model = Model((self._folder if tiny else self._place) / name, shape, limit)
        if not model.folder.exists():
            job = {"shape": dataclasses.asdict(shape), "limit": limit, "rank": options.rank}
            made = self._folder / "made" / name
            made.parent.mkdir(exist_ok=True)
            program = PROGRAMS / "made_model.py"
            run_ = self._run(options.python, program, self._job(out=str(made), **job))
            # Made below the folder that is removed in any case, and kept only on demand.
            model = dataclasses.replace(model, folder=made)
            if options.keep and not tiny:
                model = dataclasses.replace(model, folder=made.rename(self._place / name))
            if not tiny:
                say(f"made {gb(model.bytes)} in {run_.wall_s:.0f} s: {model.folder}")
        elif not tiny:
            say(f"using {gb(model.bytes)} kept before: {model.folder}")
        return model

    def import_torch(self, _: Model, __: Path) -> Run:
        """What each merge begins with."""
        return self._run(self._options.python, "-c", "import torch")

    def copy(self, model: Model, out: Path) -> Run:
        """The base copied, and on the disk."""
        return self._run("sh", "-c", COPYING, "sh", model.base, out)

    def ours(self, model: Model, out: Path) -> Run:
        """The streaming merge."""
        job = self._job(
            base=str(model.base),
            adapter=str(model.adapter),
            out=str(out),
            device=self._options.device,
            workers=self._options.workers,
        )
        return self._run(self._options.python, self._options.worker, job)

    def peft(self, model: Model, out: Path) -> Run:
        """PEFT's default way."""
        job = self._job(
            base=str(model.base),
            adapter=str(model.adapter),
            out=str(out),
            max_shard_bytes=model.limit,
        )
        return self._run(self._options.python, PROGRAMS / "peft_default.py", job)

    def warm_up(self) -> None:
        """Merge a tiny model both ways, uncounted; what is amiss shows here, before anything large is made."""
        tiny = self.model(TINY, tiny=True)
        for number, start in enumerate((self.import_torch, self.ours, self.peft)):
            start(tiny, self._folder / f"warm-up-{number}")

    def rounds(self, model: Model, names: tuple[str, ...]) -> tuple[report.Runs, dict[str, Any]]:
        """All of ``names`` in turn, round after round; gives also what differs between ours and PEFT's."""
        starts = {TORCH: self.import_torch, COPY: self.copy, OURS: self.ours, PEFT: self.peft}
        runs: report.Runs = {name: [] for name in names}
        found: dict[str, Any] = {}
        for number in range(self._options.rounds):
            results: dict[str, Path] = {}
            at = number % len(names)
            for name in (*names[at:], *names[:at]):
                out = self._folder / f"out-{'-'.join(name.split())}"
                # What earlier runs left to be written is written, and no part of this run's time.
                os.sync()
                warm(model.folder)
                done = starts[name](model, out)
                runs[name].append(done)
                say(
                    f"round {number + 1}: {name:<14}{done.wall_s:8.2f} s{done.cpu_s:8.2f} s CPU"
                    f"{done.peak_rss / report.MIB:7.0f} MiB"
                )
                if number == 0 and PEFT in names and name in (OURS, PEFT):
                    results[name] = out
                else:
                    shutil.rmtree(out, ignore_errors=True)
            if results:
                found = self._compare(results, model)
                for out in results.values():
                    shutil.rmtree(out)
        return runs, found

    def _compare(self, results: dict[str, Path], model: Model) -> dict[str, Any]:
        counts = {name: len(list(out.glob("*.safetensors"))) for name, out in results.items()}
        if set(counts.values()) != {model.shards}:
            written = ", ".join(f"{name} {count}" for name, count in counts.items())
            say(f"the base has {model.shards} shards; written: {written}")
        program = PROGRAMS / "compare_weights.py"
        folders = (results[OURS], results[PEFT], model.adapter)
        self._run(self._options.python, program, *folders)
        lines = (self._folder / "log").read_text(encoding="utf-8").splitlines()
        found: dict[str, Any] = json.loads(lines[-1])
        return found


def say(text: str) -> None:
    """Progress: not part of the report."""
    print(text, file=sys.stderr, flush=True)
