"""How what lies on disk is verified: progress, cancel, what cannot be read, and no trace of having read it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import threading

import pytest
from fixtures.verified_things import (
    FILES,
    WEIGHTS,
    blob_of,
    item,
    made_checkpoint,
    said,
    snapshot_in,
    verdict,
)

from quantui.domain.caches.items import Kind
from quantui.domain.caches.verification import Soundness, Verified, Verifying
from quantui.runtime.caches.verifying import verify


@pytest.fixture
def snapshot(tmp_path):
    return snapshot_in(tmp_path)


@pytest.fixture
def repo(snapshot):
    return snapshot.parent.parent


@pytest.fixture
def made():
    return made_checkpoint()


def test_progress_counts_from_nothing_to_all_of_it(repo):
    events = [event for event in verify([item(Kind.HUB, repo)]) if isinstance(event, Verifying)]
    assert (events[0].done_bytes, events[0].total_bytes) == (0, 0)
    assert events[-1].done_bytes == events[-1].total_bytes == sum(map(len, FILES.values()))


def test_a_cancel_ends_it_without_a_verdict_on_what_was_under_way(made):
    record = json.loads((made / "quantui.json").read_text())
    with (made / "huge").open("wb") as file:
        file.truncate(1 << 40)
    record["files"]["huge"] = 1 << 40
    (made / "quantui.json").write_text(json.dumps(record))
    cancel = threading.Event()
    events = []
    for event in verify([item(Kind.MERGED, made)] * 2, cancelled=cancel.is_set):
        events.append(event)
        cancel.set()
    assert not any(isinstance(event, Verified) for event in events)


def test_a_file_that_is_a_pipe_does_not_make_it_wait(made):
    (made / "config.json").unlink()
    os.mkfifo(made / "config.json")
    found = verdict(item(Kind.MERGED, made))
    assert "config.json: is not a file" in said(found)


def test_a_loop_of_links_is_told(repo, snapshot):
    (snapshot / "loop").symlink_to("loop")
    assert verdict(item(Kind.HUB, repo)).state is not Soundness.OK


def test_a_thing_that_is_gone_is_told(tmp_path):
    assert said(verdict(item(Kind.HUB, tmp_path / "models--a--b"))) == [": is gone"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_this_user_may_not_read_is_unknown_and_not_damaged(repo, snapshot):
    blob_of(snapshot, "config.json").chmod(0)
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.UNKNOWN


def test_verifying_does_not_look_like_using(repo, snapshot):
    blob = blob_of(snapshot, "model.safetensors")
    os.utime(blob, (1.0, blob.stat().st_mtime))
    verdict(item(Kind.HUB, repo))
    assert blob.stat().st_atime == 1.0


def resident(path):
    """Bytes of a file in the page cache; skips where nothing tells."""
    tool = shutil.which("fincore")
    if tool is None:
        pytest.skip("there is no fincore")
    told = subprocess.run([tool, "-nb", "-o", "RES", path], capture_output=True, text=True)
    return int(told.stdout or 0)


def forget(path):
    """Let the page cache drop a file; skips where it lives there alone, as on tmpfs."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if resident(path):
        pytest.skip("this file system keeps its files in memory")


def test_verifying_leaves_the_page_cache_as_it_was(repo, snapshot):
    blob = blob_of(snapshot, "model.safetensors")
    forget(blob)
    verdict(item(Kind.HUB, repo))
    assert resident(blob) == 0
    blob.read_bytes()
    verdict(item(Kind.HUB, repo))
    assert resident(blob) >= len(WEIGHTS)


def test_a_name_that_is_not_utf8_is_read_like_any_other(made):
    name = os.fsdecode(b"w\xe4ights.bin")
    (made / name).write_bytes(b"x")
    os.utime(made / name)
    record = json.loads((made / "quantui.json").read_text())
    record["files"][name] = 1
    (made / "quantui.json").write_text(json.dumps(record))
    assert verdict(item(Kind.MERGED, made)).state is Soundness.UNKNOWN
    assert verdict(item(Kind.MERGED, made)).state is Soundness.OK


def test_items_are_given_back_as_they_came(repo):
    given = dataclasses.replace(item(Kind.HUB, repo), detail="x")
    assert verdict(given).item is given
