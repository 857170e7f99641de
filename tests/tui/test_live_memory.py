"""Sampling the machine while somebody looks: real counters, and a GPU that falls off the bus."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from fake_nvml import FakeNvml, compile_fake, gpu, machine

from quantui.tui.live_memory import LiveMemory
from quantui.tui.memory_history import HOST_RAM

GIB = 1024**3

LIVE = """
import json, time
from quantui.tui.live_memory import LiveMemory
live = LiveMemory(interval_s=0.01)
live.start()
series = live.history.series(0)
deadline = time.monotonic() + 20
while len(series) < 5 or (WAIT_FOR_LOSS and series.lost_at is None):
    assert time.monotonic() < deadline and live.alive, live.problem
    time.sleep(0.01)
live.close()
print(json.dumps([series.total, series.peak, series.lost_at is not None, live.problem]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fake(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake(folder: Path, tmp_path: Path) -> FakeNvml:
    return FakeNvml(folder, tmp_path)


def until(holds, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_ram_of_the_machine_is_sampled_until_it_is_closed():
    live = LiveMemory(interval_s=0.01)
    live.start()
    series = live.history.series(HOST_RAM)
    until(lambda: len(series) >= 3)
    assert series.total is not None
    assert 0 < series.peak <= series.total
    live.close()
    until(lambda: not live.alive)
    assert live.problem == ""


def test_started_twice_it_is_one_thread():
    live = LiveMemory(interval_s=0.01)
    live.start()
    live.start()
    mine = [thread for thread in threading.enumerate() if thread is live._thread]
    live.close()
    assert len(mine) == 1


def test_a_gpu_is_sampled_by_its_index(fake: FakeNvml):
    told = fake.run(LIVE.replace("WAIT_FOR_LOSS", "False"), machine(gpu(0), gpu(1)))
    assert f"[{80 * GIB}, 0, false, " in told


def test_a_gpu_that_is_lost_on_the_way_is_marked_and_the_rest_goes_on(fake: FakeNvml):
    lost = "\n".join(f"failafter nvmlDeviceGetMemoryInfo{version} 9 15" for version in ("", "_v2"))
    told = fake.run(LIVE.replace("WAIT_FOR_LOSS", "True"), machine(gpu(0), also=lost))
    assert f"[{80 * GIB}, 0, true, " in told


def test_what_ends_the_sampling_is_kept_and_not_raised(monkeypatch):
    def broken():
        raise RuntimeError("the driver went away")

    monkeypatch.setattr("quantui.runtime.gpu_memory.open_gpu_memory", broken)
    live = LiveMemory()
    live.start()
    until(lambda: not live.alive)
    assert live.problem == "RuntimeError: the driver went away"
