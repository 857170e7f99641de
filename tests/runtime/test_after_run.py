"""What a run leaves on the disk: a merged model that nobody needs, hashes of what it made, a word on the budget."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from ended_runs import end, events_of, texts
from fake_vllm import Script
from run_plans import check_step, merge_step, serve_step

from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore, exclusive
from quantui.runtime.caches.budget import BudgetWatch
from quantui.runtime.known_profiles import note_profile
from quantui.runtime.settings import settings_file

MIB = 1 << 20


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Caches of this test's own, with four megabytes of compiled graphs."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "UV_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "graph").write_bytes(bytes(4 * MIB))


@pytest.fixture
def go():
    return events_of


def settings(text):
    settings_file().parent.mkdir(parents=True, exist_ok=True)
    settings_file().write_text(text)


def test_a_run_over_the_budget_ends_with_one_line_that_says_so(tmp_path):
    settings('[cache]\nbudget = "4MB"\n')
    watch = BudgetWatch()
    watch.begin()
    hint = watch.hint(60)
    assert hint.startswith("quantui's caches take ")
    assert "of the budget of 3.8 MiB: `quantui cache prune` frees " in hint


def test_within_the_budget_or_without_one_nothing_is_said(tmp_path):
    for text in ("", '[cache]\nbudget = "1TB"\n', "[cache]\nbudget = 5\n"):
        settings(text)
        watch = BudgetWatch()
        watch.begin()
        assert watch.hint(60) == ""


def test_without_a_budget_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(
        "quantui.runtime.caches.inventory.collect", lambda **_: pytest.fail("it looked")
    )
    watch = BudgetWatch()
    watch.begin()
    assert watch.hint(0) == ""


def test_a_look_that_takes_long_delays_nobody(monkeypatch):
    settings('[cache]\nbudget = "1MB"\n')
    ends = threading.Event()
    monkeypatch.setattr("quantui.runtime.caches.inventory.collect", lambda **_: ends.wait())
    watch = BudgetWatch()
    watch.begin()
    assert watch.hint(0.01) == ""
    ends.set()


def merged(folder):
    return Path(merge_step(folder).path)


def served(go, tmp_path, **options):
    steps = (merge_step(tmp_path), serve_step(tmp_path, Script()), check_step())
    return go(*steps, after_run="delete-merged", **options)


def test_the_merged_model_goes_once_its_server_has_stopped_and_what_that_freed_is_said(
    go, tmp_path
):
    body = f"Path(job['out']).mkdir(); Path(job['out'], 'x').write_bytes(bytes({3 * MIB}))"
    steps = (merge_step(tmp_path, body), serve_step(tmp_path, Script()), check_step())
    events = go(*steps, after_run="delete-merged")
    assert not merged(tmp_path).exists()
    (told,) = [text for text in texts(events) if text.startswith("Deleted")]
    assert "3.0 MiB freed: the server has stopped." in told


def test_the_merged_model_stays_while_another_run_holds_its_lock(go, tmp_path):
    events = []
    store = ArtifactStore()
    merge = merge_step(tmp_path)
    stop = threading.Event()
    held = []

    def take(event):
        if event.type == "server.ready":
            held.append(exclusive(store.lock_of(merge.artifact), stop.is_set))
            held[0].__enter__()
        return False

    events = served(go, tmp_path, until=take)
    held[0].__exit__(None, None, None)
    assert merged(tmp_path).exists()
    assert any(text.endswith("another run is making or taking it.") for text in texts(events))


def test_the_merged_model_stays_while_a_process_has_it_open(go, tmp_path):
    users = []

    def use(event):
        if event.type == "server.ready":
            # A process that stands in it, as a shell or a program of somebody's may.
            users.append(subprocess.Popen(["sleep", "600"], cwd=merged(tmp_path)))
        return False

    try:
        events = served(go, tmp_path, until=use)
    finally:
        for user in users:
            user.kill()
            user.wait()
    assert merged(tmp_path).exists()
    assert any(f"process {users[0].pid}" in text for text in texts(events))


@pytest.mark.parametrize(("after", "stays"), [("keep", True), ("delete-merged", False)])
def test_the_merged_model_stays_for_another_profile_that_keeps_it(go, tmp_path, after, stays):
    profile = tmp_path / "other.toml"
    profile.write_text(
        'schema = 1\n[model]\nid = "owner/base"\n[adapter]\nid = "owner/my-lora"\n'
        f'[cleanup]\nafter_run = "{after}"\n'
        f'[recorded]\nbase_fingerprint = "{"b" * 64}"\nadapter_fingerprint = "{"a" * 64}"\n'
    )
    note_profile(profile, "other")
    key = ArtifactKey("my-lora", "merged", {"base": "b" * 64, "adapter": "a" * 64})
    merge = merge_step(tmp_path, artifact=key, path=str(ArtifactStore().path_of(key)))
    steps = (merge, serve_step(tmp_path, Script()), check_step())
    events = go(*steps, after_run="delete-merged")
    assert Path(merge.path).exists() == stays
    assert any(str(profile) in text for text in texts(events)) == stays


def test_what_a_run_makes_gets_its_hashes_by_its_end(go, tmp_path):
    body = "Path(job['out']).mkdir(); Path(job['out'], 'model.safetensors').write_bytes(b'abc')"
    go(merge_step(tmp_path, body))
    record = json.loads((merged(tmp_path) / "quantui.json").read_text())
    assert record["sha256"] == {
        "model.safetensors": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }


def test_a_full_disk_while_hashes_are_kept_leaves_the_record_as_it_was(go, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", lambda fd: full() if _is_record(fd) else None)
    events = go(merge_step(tmp_path))
    assert end(events).outcome == "ok"
    assert ArtifactStore().find(merge_step(tmp_path).artifact) is not None


def _is_record(fd):
    # The record that is written again, not the one of the commit.
    name = Path(f"/proc/self/fd/{fd}").readlink().name
    return name == f"quantui.json.{os.getpid()}.partial"
