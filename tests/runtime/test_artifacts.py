"""An artifact is found only when it is whole, and two runs never make the same one at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import wait_for

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import RECORD, ArtifactStore, allocated_bytes, noted_inputs

KEY = ArtifactKey("owner/my-lora", "merged", {"base": "b", "adapter": "a"})
HOLD = """
import sys, time
from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore
key = ArtifactKey("owner/my-lora", "merged", {"base": "b", "adapter": "a"})
with ArtifactStore().exclusive(key, lambda: False):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store():
    made = ArtifactStore()
    made.root.mkdir(parents=True)
    return made


def make(store, content="weights", key=KEY):
    staged = store.stage(key, 0)
    (staged / "sub").mkdir(parents=True)
    (staged / "model.safetensors").write_text(content)
    (staged / "sub" / "file").write_text("x")
    return store.commit(key, staged, {"tensors": 3})


def names(store):
    """What is in the store, locks left out."""
    return sorted(path.name for path in store.root.iterdir() if path.suffix != ".lock")


def test_what_was_made_is_found_with_its_record(store):
    made = make(store)
    found = store.find(KEY)
    assert found == made
    assert found.path == store.root / KEY.folder
    assert found.record["made"] == {"tensors": 3}
    assert found.record["inputs"] == {"base": "b", "adapter": "a"}


def test_other_inputs_are_another_artifact(store):
    make(store)
    assert store.find(ArtifactKey("owner/my-lora", "merged", {"base": "b", "adapter": "c"})) is None


def test_the_order_of_the_inputs_does_not_matter():
    assert ArtifactKey("x", "merged", {"adapter": "a", "base": "b"}).digest == KEY.digest


@pytest.mark.parametrize("base", ["../../etc/passwd", "/", "..", "a\x1b[31m/b\n", "x" * 500, ""])
def test_a_hostile_name_stays_inside_the_store(base):
    folder = ArtifactKey(base, "merged", {}).folder
    assert "/" not in folder
    assert not folder.startswith(".")
    assert folder.isprintable()
    assert len(folder) < 120


def test_an_artifact_without_its_record_is_none(store):
    (make(store).path / RECORD).unlink()
    assert store.find(KEY) is None


def test_a_file_of_another_size_is_damage(store):
    (make(store).path / "model.safetensors").write_text("weight")
    assert store.find(KEY) is None


def test_a_file_that_is_gone_is_damage(store):
    (make(store).path / "sub" / "file").unlink()
    assert store.find(KEY) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 1}', '{"format": 2, "files": {}, "made": {}}',
     '{"format": 1, "files": [], "made": {}}', '{"format": 1, "files": {}, "made": 3}',
     '{"format": 1, "files": {}}'],
)  # fmt: skip
def test_a_record_that_is_none_is_damage(store, text):
    (make(store).path / RECORD).write_text(text)
    assert store.find(KEY) is None


def test_what_is_staged_is_not_found(store):
    staged = store.stage(KEY, 0)
    staged.mkdir()
    (staged / RECORD).write_text(json.dumps({"format": 1, "files": {}, "made": {}}))
    assert store.find(KEY) is None


def test_leftovers_of_an_earlier_try_are_removed_before_the_next(store):
    for suffix in ("", "-old", "-deleting"):
        (store.root / f"{KEY.folder}.staged{suffix}").mkdir()
        (store.root / f"{KEY.folder}.staged{suffix}" / "half").write_text("x")
    staged = store.stage(KEY, 0)
    assert names(store) == []
    assert not staged.exists()


def test_what_an_unfinished_maker_can_go_on_from_is_kept_for_the_next(store):
    partial = store.partial_of(KEY)
    partial.mkdir()
    (partial / "shard").write_text("x")
    store.stage(KEY, 0)
    assert (partial / "shard").read_text() == "x"
    store.discard(KEY)
    assert names(store) == []


def test_what_is_there_already_needs_no_room_a_second_time(store, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2**28 + 2**20))
    with pytest.raises(QuantuiError) as raised:
        store.stage(KEY, 3 * 2**20)
    store.partial_of(KEY).mkdir()
    (store.partial_of(KEY) / "shard").write_bytes(bytes(2 * 2**20))
    store.stage(KEY, 3 * 2**20)
    with pytest.raises(QuantuiError) as raised:
        store.stage(KEY, 2**30)
    assert "are there from an earlier try" in raised.value.why


def test_a_hole_in_an_unfinished_file_is_room_that_is_still_needed(store, monkeypatch):
    store.partial_of(KEY).mkdir()
    with (store.partial_of(KEY) / "shard").open("wb") as shard:
        shard.truncate(2**30)
    assert allocated_bytes(store.partial_of(KEY)) < 2**20


def test_the_lock_says_for_what_inputs_it_is(store):
    store.stage(KEY, 0)
    assert noted_inputs(store.lock_of(KEY)) == KEY.inputs


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_lock_that_says_nothing_is_for_nothing(store, text):
    store.lock_of(KEY).write_text(text)
    assert noted_inputs(store.lock_of(KEY)) == {}


def test_making_it_again_replaces_the_old_one_whole(store):
    make(store, "old")
    (store.find(KEY).path / "only-in-the-old").write_text("x")
    make(store, "new")
    assert (store.find(KEY).path / "model.safetensors").read_text() == "new"
    assert not (store.find(KEY).path / "only-in-the-old").exists()
    assert names(store) == [KEY.folder]


def test_a_damaged_one_is_replaced(store):
    (make(store).path / "model.safetensors").write_text("damaged")
    make(store)
    assert store.find(KEY) is not None


def test_discarding_leaves_a_finished_one_alone(store):
    make(store)
    store.stage(KEY, 0).mkdir()
    store.discard(KEY)
    assert names(store) == [KEY.folder]


def test_a_deleted_one_is_gone(store):
    make(store)
    store.delete(KEY)
    assert names(store) == []


def test_deleting_works_though_an_earlier_deletion_was_interrupted(store):
    half = store.root / f"{KEY.folder}.staged-deleting"
    half.mkdir()
    (half / "file").write_text("x")
    make_staged = store.path_of(KEY)
    make_staged.mkdir()
    store.delete(KEY)
    assert names(store) == []


def test_deleting_what_is_not_there_is_no_error(store):
    store.delete(KEY)
    assert names(store) == []


def test_too_little_disk_is_told_before_anything_is_written(store, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10 * 2**30, 9 * 2**30, 2**30))
    with pytest.raises(QuantuiError) as raised:
        store.stage(KEY, 2**30)
    assert (raised.value.code, raised.value.exit_code) == (
        "disk.too-little",
        ExitCode.DOES_NOT_FIT,
    )
    assert "1.00 GiB are free" in raised.value.why
    store.stage(KEY, 2**29)


@pytest.fixture
def other():
    """Another quantui that holds the artifact's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_waits_until_the_first_has_made_it(store, other):
    got = threading.Event()

    def wait():
        with store.exclusive(KEY, lambda: False):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.wait(0.5)
    other.terminate()
    other.wait()
    waiting.join(60)
    assert got.is_set()


def test_waiting_can_be_cancelled(store, other):
    with pytest.raises(QuantuiError) as raised, store.exclusive(KEY, lambda: True):
        pytest.fail("it was held")
    assert raised.value.exit_code == ExitCode.CANCELLED


def test_another_artifact_is_not_waited_for(store, other):
    with store.exclusive(ArtifactKey("x", "merged", {}), lambda: True):
        pass


def test_a_killed_holder_frees_the_lock(store, other):
    os.kill(other.pid, 9)
    other.wait()
    with store.exclusive(KEY, lambda: False):
        assert wait_for(lambda: True)


def test_a_child_started_while_the_lock_is_held_does_not_keep_it(store):
    with store.exclusive(KEY, lambda: False):
        child = subprocess.Popen(["sleep", "600"])
    try:
        with store.exclusive(KEY, lambda: True):
            pass
    finally:
        child.kill()
        child.wait()
