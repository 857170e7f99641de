"""Where a disk has too little room, what could go is said, the least regretted first; nothing is deleted unasked."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from ended_runs import end, events_of
from fixtures.hub_cache import cached
from run_plans import merge_step, plan_of, quantize_step

from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind, Rebuild
from quantui.domain.caches.room import Room, least_regretted, room_fix, room_lines
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import StepFailed, StepStarted
from quantui.domain.plan import DownloadStep
from quantui.domain.units import RESERVE_BYTES
from quantui.runtime import plan_room
from quantui.runtime.caches import room
from quantui.runtime.caches.room import told_what_could_go, what_could_go
from quantui.runtime.known_profiles import note_profile

MIB = 1 << 20
DAY = 86400.0
NOW = 1_800_000_000.0
FREE = RESERVE_BYTES + 50 * MIB


def thing(name, size, days, **told):
    told.setdefault("rebuild", Rebuild("download it again", download=size))
    use = told.pop("use", DiskUse(size, size))
    return CacheItem(Kind.HUB, name, f"/r/{name}", "/r", use, used_at=NOW - days * DAY, **told)


def chosen(items, short, here=lambda _: True):
    known = {item.path: item for item in items}
    return [item.name for item in least_regretted(known, short, now=NOW, here=here)]


# What is chosen --------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_comes_first_and_no_more_than_is_needed():
    items = [thing("new", 10 * MIB, 1), thing("old", 10 * MIB, 90), thing("older", 10 * MIB, 99)]
    assert chosen(items, 5 * MIB) == ["older"]
    assert chosen(items, 15 * MIB) == ["older", "old"]


def test_what_turns_out_not_to_be_needed_is_left_out_again():
    items = [thing("small", 1 * MIB, 99), thing("large", 50 * MIB, 98)]
    assert chosen(items, 40 * MIB) == ["large"]


def test_what_lies_elsewhere_or_is_needed_by_a_profile_is_not_named():
    items = [
        thing("elsewhere", 9 * MIB, 99),
        thing("needed", 9 * MIB, 98, profiles=("/p.toml",)),
        thing("lost-for-good", 9 * MIB, 97, rebuild=None),
        thing("free", 9 * MIB, 1),
    ]
    assert chosen(items, MIB, here=lambda item: item.name != "elsewhere") == ["free"]


def test_what_two_share_counts_only_once_both_go():
    shared = DiskUse(9 * MIB, 0, (Claim("1:2", 1, 2, 9 * MIB),))
    items = [thing("a", 9 * MIB, 99, use=shared), thing("b", 9 * MIB, 98, use=shared)]
    assert chosen(items, MIB) == ["a", "b"]


def test_the_words_name_what_could_go_its_size_and_its_age():
    found = Room("/r", 0, 20 * MIB, (thing("space/llama", 30 * MIB, 40),))
    assert room_lines(found, NOW) == ("could go: space/llama (30.0 MiB, not used for 40 d)",)
    assert "quantui cache prune --keep-free 1GiB" in room_fix(found)


def test_of_many_the_first_are_named_and_the_rest_counted():
    items = tuple(thing(f"m{number}", MIB, 99) for number in range(9))
    lines = room_lines(Room("/r", 0, 9 * MIB, items), NOW)
    assert len(lines) == 6
    assert lines[-1] == "could go: 4 more (4.0 MiB)"


def test_it_is_said_when_all_of_it_is_not_enough():
    found = Room("/r", 0, 50 * MIB, (thing("m", 30 * MIB, 40),))
    assert "prune" not in room_fix(found), "nobody is led to delete all of it in vain"
    lines = room_lines(found, NOW)
    assert lines[-1] == "together 30.0 MiB of the 50.0 MiB that are lacking"


def test_a_name_with_an_escape_sequence_reaches_no_terminal():
    found = Room("/r", 0, MIB, (thing("a\x1b]52;c;eA==\x07b", 30 * MIB, 40),))
    assert "\x1b" not in room_lines(found, NOW)[0]


# On this machine -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine whose disk has 50 MiB free, with two repositories in its Hub cache and nothing else."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "UV_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "none"))
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(room, "_free_bytes", lambda _: FREE)
    monkeypatch.setattr(plan_room, "_free", lambda _: FREE)
    for name, days in (("space/new", 2), ("space/old", 40)):
        snapshot = cached(
            tmp_path / "hf" / "hub", name, {"model.safetensors": name[-3:].encode() * MIB}
        )
        at = time.time() - days * DAY
        for path in snapshot.parent.parent.rglob("*"):
            os.utime(path, (at, at))


def home():
    return Path(os.environ["QUANTUI_HOME"])


def test_where_there_is_enough_nothing_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_look", lambda _: pytest.fail("it looked"))
    found = what_could_go(tmp_path, FREE)
    assert (found.short, found.candidates, found.enough) == (0, (), True)


def test_what_could_go_is_found_and_nothing_is_deleted(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = what_could_go(tmp_path / "not" / "made" / "yet", FREE + 2 * MIB)
    assert (found.short, found.enough, found.complete) == (2 * MIB, True, True)
    assert [item.name for item in found.candidates] == ["space/old"]
    assert set(before) <= set(tmp_path.rglob("*"))


def test_what_a_known_profile_uses_is_not_offered(tmp_path):
    profile = tmp_path / "prod.toml"
    profile.write_text('schema = 1\n[model]\nid = "space/old"\n')
    note_profile(profile, "space/old")
    found = what_could_go(tmp_path, FREE + 2 * MIB)
    assert [item.name for item in found.candidates] == ["space/new"]


def test_what_lies_on_another_file_system_is_not_offered(tmp_path):
    other = next((p for p in (Path("/dev/shm"), Path("/run")) if p.is_dir()), None)
    if other is None or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    assert what_could_go(other, FREE + 2 * MIB).candidates == ()


def test_a_file_system_that_does_not_answer_holds_nobody_up(tmp_path, monkeypatch):
    hangs = threading.Event()

    def scan(**_):
        hangs.wait()
        yield from ()

    monkeypatch.setattr("quantui.runtime.caches.inventory.scan", scan)
    found = what_could_go(tmp_path, FREE + 1, within_s=0.05)
    hangs.set()
    assert (found.candidates, found.complete) == ((), False)
    assert "in the time there was" in room_lines(found, time.time())[0]


def test_an_error_says_once_what_could_go_and_how(tmp_path):
    error = QuantuiError("disk.full", "The disk is full.", fix="Free space.")
    for _ in range(2):
        error = told_what_could_go(error, tmp_path, FREE + 2 * MIB)
    (line,) = error.detail
    assert line.startswith("could go: space/old (3.0 MiB, not used for 40 d)")
    assert error.fix.startswith("Free space. `quantui cache prune --keep-free ")
    assert error.fix.count("--keep-free") == 1


# A plan ----------------------------------------------------------------------------------------------


@pytest.fixture
def go():
    return events_of


def download(size):
    job = {"repo_id": "space/next"}
    return DownloadStep("download-base", "download space/next", ("true",), job, size, "")


def test_what_a_plan_writes_to_one_disk_counts_together(tmp_path):
    plan = plan_of(download(30 * MIB), merge_step(tmp_path, bytes=25 * MIB))
    (disk,) = plan_room.disks_of(plan)
    assert disk.needed == 55 * MIB + RESERVE_BYTES
    assert [size for _, size in disk.writes] == [30 * MIB, 25 * MIB]
    assert disk.lacks


def test_what_was_made_before_or_begun_needs_no_room_again(tmp_path):
    merge = merge_step(tmp_path, bytes=25 * MIB)
    partial = Path(f"{merge.path}.staged.partial")
    partial.mkdir(parents=True)
    (partial / "x").write_bytes(bytes(5 * MIB))
    assert plan_room.disks_of(plan_of(merge))[0].writes[0][1] == 20 * MIB
    assert plan_room.disks_of(plan_of(merge), frozenset({"merge"})) == ()


def test_a_run_that_the_disk_cannot_hold_ends_before_its_first_step(go, tmp_path):
    steps = (merge_step(tmp_path, bytes=30 * MIB), quantize_step(tmp_path, bytes=22 * MIB))
    events = go(*steps)
    assert not [event for event in events if isinstance(event, StepStarted)]
    error = end(events).error
    assert (error["code"], error["exit_code"]) == ("disk.too-little", ExitCode.DOES_NOT_FIT)
    assert any(line.startswith("could go: space/old") for line in error["detail"])
    assert "quantui cache prune --keep-free" in error["fix"]


def test_a_step_that_meets_a_full_disk_says_what_could_go(go, tmp_path):
    body = (
        "raise wire.WorkerError('disk.full', 'The disk is full.', 'Why.', 'Free it.', exit_code=3)"
    )
    events = go(merge_step(tmp_path, body, bytes=52 * MIB))
    (failed,) = [event for event in events if isinstance(event, StepFailed)]
    assert any(line.startswith("could go: space/old") for line in failed.error["detail"])
    assert end(events).error["detail"] == failed.error["detail"]


def test_other_failures_say_nothing_of_the_disk(go, tmp_path):
    events = go(merge_step(tmp_path, "raise KeyError"))
    assert not any("could go" in line for line in end(events).error["detail"])
