"""What the sampler reads: the processes below a keeper, and the RAM that is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import wait_for

from quantui.runtime import process_tree
from quantui.runtime.process_tree import ProcessTree
from quantui.runtime.sampler import FreeMemory, MemorySampler

FAMILY = """
import subprocess, sys
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
input()
"""


@pytest.fixture
def family():
    """A process with a child: (parent's process, child's number)."""
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    yield parent, child
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    parent.kill()
    parent.communicate()


@pytest.fixture(autouse=True)
def always_looks(monkeypatch):
    monkeypatch.setattr(process_tree, "_REFRESH_S", 0.0)


def test_children_and_grandchildren_are_found_and_the_root_is_left_out(family):
    parent, child = family
    assert set(ProcessTree().below([os.getpid()])) >= {parent.pid, child}
    assert ProcessTree().below([parent.pid]) == [child]


def test_a_process_that_comes_later_is_found_and_one_that_goes_is_forgotten(family):
    parent, child = family
    tree = ProcessTree()
    assert tree.below([child]) == []
    assert tree.below([parent.pid]) == [child]
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as later:
        assert later.pid in tree.below([os.getpid()])
    assert later.pid not in tree.below([os.getpid()])


def test_an_orphan_is_with_whoever_adopted_it(family):
    parent, child = family
    tree = ProcessTree()
    assert child in tree.below([parent.pid])
    parent.kill()
    parent.wait()
    assert child in tree.below([psutil.Process(child).ppid()])
    assert child not in tree.below([parent.pid])


def test_without_roots_nothing_is_read_and_nothing_found():
    assert ProcessTree().below([]) == []


def test_between_two_looks_the_last_answer_holds(family, monkeypatch):
    monkeypatch.setattr(process_tree, "_REFRESH_S", 3600.0)
    tree = ProcessTree()
    first = tree.below([os.getpid()])
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as later:
        assert tree.below([os.getpid()]) == first
        assert later.pid in tree.below([os.getppid()])


def test_the_ram_left_is_what_the_kernel_has_available():
    left, told = FreeMemory().read(), psutil.virtual_memory()
    assert left is not None
    assert 0 < left < told.total


def machine(root: Path, limit: str) -> Path:
    """A /proc and a /sys where 900 KiB are available and a cgroup has ``limit``, 100,000 of it used."""
    (root / "proc/self").mkdir(parents=True)
    (root / "sys/fs/cgroup/app").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        "MemTotal: 1000 kB\nMemFree: 5 kB\nMemAvailable:     900 kB\n"
    )
    (root / "proc/self/cgroup").write_text("0::/app\n")
    (root / "proc/self/mountinfo").write_text(
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    )
    for name, text in (("max", limit), ("current", "100000"), ("stat", "inactive_file 0\n")):
        (root / f"sys/fs/cgroup/app/memory.{name}").write_text(text)
    return root


@pytest.mark.parametrize(("limit", "left"), [("500000", 400_000), ("max", 900 * 1024)])
def test_in_a_container_it_is_no_more_than_the_limit_leaves(tmp_path, limit, left):
    assert FreeMemory(machine(tmp_path, limit)).read() == left


def test_where_nothing_can_be_read_it_is_unknown(tmp_path):
    assert FreeMemory(tmp_path).read() is None


def test_the_sampler_says_what_it_costs():
    sampler = MemorySampler(lambda: [os.getpid()], interval_s=0.001)
    sampler.start()
    wait_for(sampler.drain)
    assert sampler.cpu_seconds() > 0
    sampler.close()
