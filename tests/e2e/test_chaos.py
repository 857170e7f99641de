"""However quantui ends, and whenever: nothing of the run is left, nothing lies, and the next run works.

SIGINT, SIGTERM and SIGKILL to quantui at random moments of every phase. QUANTUI_CHAOS_RUNS says how
many (4; 7: each phase once; 21: every signal in every phase), QUANTUI_CHAOS_SEED which: a failure names its own.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.deployment import READY_S
from fixtures.quantui_command import (
    CLEARED_WITHIN_S,
    Home,
    Running,
    can_be_bound,
    free_port,
    write_profile,
)

from quantui.runtime.artifacts import read_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = pytest.mark.engine

RUNS = int(os.environ.get("QUANTUI_CHAOS_RUNS", "4"))
SEED = int(os.environ.get("QUANTUI_CHAOS_SEED", time.time_ns() % 1_000_000))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)

LONGEST_DELAY_S = {
    "start": 0.6,
    "probe": 8.0,
    "merge": 6.0,
    "serve": 25.0,
    "weights": 1.5,
    "check": 3.0,
    "hold": 2.0,
}
"""Phase -> how long after its beginning the signal may come: about as long as the phase takes."""


@dataclass(frozen=True)
class Blow:
    """One signal, sent ``delay`` seconds after ``phase`` began."""

    number: signal.Signals
    phase: str
    delay: float

    def __str__(self) -> str:
        return f"{self.number.name}, {self.delay:.2f} s into {self.phase}"


def blows(count: int, seed: int) -> list[Blow]:
    """``count`` blows. Seven phases and three signals have no common divisor: 21 blows are all pairs."""
    chance = random.Random(seed)
    phases, signals = list(LONGEST_DELAY_S), list(SIGNALS)
    chance.shuffle(phases)
    chance.shuffle(signals)
    return [
        Blow(
            signals[i % len(signals)],
            phases[i % len(phases)],
            chance.uniform(0, LONGEST_DELAY_S[phases[i % len(phases)]]),
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class Struck:
    """What came of a blow: exit code, events, and what the processes shared when it fell."""

    exit_code: int
    events: list[dict[str, Any]]
    shared: set[Path]


class Target:
    """A quantui to be hit again and again, and what must be so afterwards."""

    def __init__(self, demo: Path, python: str, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.port = free_port()
        self.profile = write_profile(
            folder / "prod.toml",
            {
                "model": {"id": demo / "base"},
                "adapter": {"id": demo / "adapter"},
                "quantization": {"method": "bitsandbytes"},
                "engine": {"name": "vllm-cpu", "python": python},
                # An argument of its own makes quantui ask the engine what it supports.
                "serve": {"port": self.port, "enforce_eager": True, "extra_args": {"seed": 1}},
                "check": {"max_tokens": 200},
            },
        )
        self.merged = self.prepare()

    def prepare(self) -> bytes:
        """Run to the merged model, which must work; gives its weights."""
        ended = self.home.run("--profile", self.profile, "--prepare-only", "--json")
        assert ended.exit_code == 0, ended.text
        cleared = [e for e in ended.of("notice") if "had left behind" in e["text"]]
        assert cleared == [], "the run before had not cleaned up itself"
        (artifact,) = self.home.artifacts
        return (artifact / "model.safetensors").read_bytes()

    def strike(self, blow: Blow) -> Struck:
        """Run into ``blow``; returns when quantui and every process of it are gone, in time."""
        if blow.phase == "probe":
            shutil.rmtree(self.home.path / "cache" / "capabilities", ignore_errors=True)
        again = ["--set", "merge.recreate=true"] if blow.phase == "merge" else []
        running = self.home.start("--profile", self.profile, "--json", *again)
        wait_for(blow.phase, running)
        time.sleep(blow.delay)
        shared = self.home.shared_memory()
        struck = time.monotonic()
        running.process.send_signal(blow.number)
        while time.monotonic() - struck < CLEARED_WITHIN_S and (
            running.process.poll() is None or self.home.processes()
        ):
            time.sleep(0.05)
        assert self.home.processes() == {}
        ended = running.end(5)
        assert "Traceback" not in ended.out + ended.err or blow.phase == "start", ended.err
        # A line that SIGKILL cut short is no event.
        whole = ended.out[: ended.out.rfind("\n") + 1]
        return Struck(ended.exit_code, replace(ended, out=whole).events, shared)


def wait_for(phase: str, running: Running) -> None:
    """Return when ``phase`` has begun."""
    begins = {
        "merge": lambda e: e["type"] == "step.started" and e["step"] == "merge",
        "serve": lambda e: e["type"] == "step.started" and e["step"] == "serve",
        "weights": lambda e: e.get("phase") == "loading weights",
        "check": lambda e: e["type"] == "step.started" and e["step"] == "check",
        "hold": lambda e: e["type"] == "notice" and e["text"].startswith("Serving "),
    }
    if phase == "probe":
        running.wait_for_words("asking the engine what it supports", 60)
    elif phase != "start":
        running.wait_for(begins[phase], READY_S)


def exit_codes(blow: Blow, events: list[dict[str, Any]]) -> set[int]:
    """The exit codes that tell the truth about a run with ``events`` that ended by ``blow``."""
    if blow.number == signal.SIGKILL:
        return {-signal.SIGKILL}
    if any(event["type"] == "server.ready" for event in events):
        return {0, 130}
    # Python itself dies of a signal that comes before quantui has begun.
    return {130, -blow.number} if blow.phase == "start" else {130}


@pytest.fixture(scope="module")
def target(demo: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(demo, engine.python, tmp_path_factory.mktemp("chaos"))


@pytest.mark.parametrize("blow", blows(RUNS, SEED), ids=lambda blow: f"seed {SEED}: {blow}")
def test_nothing_is_left_of_a_run_and_the_next_one_works(target: Target, blow: Blow) -> None:
    struck = target.strike(blow)
    assert struck.exit_code in exit_codes(blow, struck.events)
    assert can_be_bound(target.port)
    assert [path for path in struck.shared if path.exists()] == []
    # What claims to be an artifact is one: whole, and with the weights that an undisturbed merge gives.
    for path in target.home.artifacts:
        assert read_artifact(path) is not None
        assert (path / "model.safetensors").read_bytes() == target.merged
    assert target.prepare() == target.merged
    assert target.home.unfinished == []
    assert target.home.processes() == {}


def test_after_all_of_it_the_whole_job_is_done_as_ever(target: Target) -> None:
    ended = target.home.run("--profile", target.profile, "--json", "--check-only")
    assert ended.exit_code == 0, ended.text
    assert ended.of("server.answered")[0]["text"].strip()
    assert target.home.processes() == {}
    assert can_be_bound(target.port)


def test_blows_fall_on_every_phase_by_every_signal() -> None:
    every = blows(len(SIGNALS) * len(LONGEST_DELAY_S), SEED)
    assert len({(blow.number, blow.phase) for blow in every}) == len(every)
