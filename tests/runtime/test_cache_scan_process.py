"""A scan in a process of its own tells what a scan here does, and leaves nothing behind."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import psutil
import pytest
from fixtures.cache_things import artifact, own_places, repository

from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind, ScanProblem
from quantui.runtime.caches import scan_process
from quantui.runtime.caches.inventory import scan
from quantui.runtime.caches.scan_process import scan_beside
from quantui.runtime.paths import runs_dir


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


def told(found):
    """Items by path, the last one of each, and problems."""
    items = {one.path: one for one in found if isinstance(one, CacheItem)}
    return items, {one for one in found if isinstance(one, ScanProblem)}


def children():
    return [one for one in psutil.Process().children() if scan_process.__name__ in one.cmdline()]


@pytest.fixture
def many():
    for number in range(40):
        (runs_dir() / f"20261001-0000{number:02}-aaaaaa").mkdir(parents=True)


def test_it_tells_what_a_scan_here_tells(hub, many):
    artifact("base")
    repository(hub, "beside/model")
    (hub / "models--beside--broken").mkdir()
    assert told(list(scan_beside())) == told(list(scan()))


def test_a_thing_that_shares_tens_of_thousands_of_files_comes_whole():
    claims = tuple(Claim(f"1:{number}", 1, 2, 4096) for number in range(1234))
    item = CacheItem(Kind.ENGINE, "vllm", "/e/vllm", "/e", DiskUse(5, 7, claims), files=1234)
    messages = list(scan_process._told(item))
    assert max(len(body) for what, body in messages if what == "claims") <= 500
    assert messages[0][1] == replace(item, use=DiskUse(5, 7))

    class Written:
        stdout = None

    def replay(process, stop):
        yield from [*messages, ("problem", ScanProblem("/x", "y")), ("end", None)]

    original, scan_process._messages = scan_process._messages, replay
    try:
        assert list(scan_process._read(Written(), lambda: False)) == [item, ScanProblem("/x", "y")]
    finally:
        scan_process._messages = original


def test_few_things_need_no_process(monkeypatch):
    artifact("base")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert told(list(scan_beside())) == told(list(scan()))


def test_stopping_leaves_no_process(many):
    stopped = threading.Event()
    scanning = scan_beside(stop=stopped.is_set)
    for _ in range(20):
        next(scanning)
    assert children()
    stopped.set()
    assert list(scanning) == []
    assert not children()


def test_whoever_stops_reading_leaves_no_process(many):
    scanning = scan_beside()
    for _ in range(20):
        next(scanning)
    assert children()
    scanning.close()
    assert not children()


def test_a_bug_in_the_process_is_raised_with_its_traceback(many, tmp_path, monkeypatch):
    # Python runs sitecustomize before anything else: there the inventory of the process is made to fail.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'quantui.runtime.caches.scan_process' in ' '.join(sys.orig_argv):\n"
        "    import quantui.runtime.caches.inventory as inventory\n"
        "    def scan(**_):\n"
        "        raise ZeroDivisionError('seven')\n"
        "    inventory.scan = scan\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: seven"):
        list(scan_beside())


def test_a_process_that_is_killed_is_told_and_not_waited_for(many, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended early"):
        list(scan_beside())
