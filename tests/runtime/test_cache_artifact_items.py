"""What quantui made, whole or not: what each thing is, what it was made from, and what having it again takes."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from checkpoint_folders import model_files, write
from fixtures.cache_things import own_places
from hub_cache import cached

from quantui.domain.caches.items import Kind
from quantui.domain.caches.made_from import Ingredient, MadeFrom
from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore, Origin, note_inputs
from quantui.runtime.caches.inventory import collect
from quantui.runtime.unfinished import OUT, SET_ASIDE
from quantui.runtime.unproven import note_unproven, set_aside

GIB = 1024**3
COMMIT = "a" * 40
MERGED = ArtifactKey("lora", "merged", {"base": "b" * 64, "adapter": "c" * 64})
QUANTIZED = ArtifactKey("lora", "awq-w4", {"base": "b" * 64, "adapter": "c" * 64, "recipe": "awq"})
RECIPE = {"method": "awq", "producer": "llm-compressor", "bits": 4, "group_size": 128}
KINDS = (Kind.MERGED, Kind.QUANTIZED, Kind.UNFINISHED, Kind.BROKEN)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


@pytest.fixture
def store():
    store = ArtifactStore()
    store.root.mkdir(parents=True)
    return store


def made(store, key=MERGED, told=None, origin=None):
    staged = write(store.stage(key, 0), model_files())
    return store.commit(key, staged, told or {"method": "streamed"}, origin).path


def found():
    return list(collect(kinds=KINDS).items.values())


def sources(adapter, base="maker/llama", size=15 * GIB):
    return MadeFrom(Ingredient(base, COMMIT, size=size), (Ingredient("lora", path=str(adapter)),))


# Whole ---------------------------------------------------------------------------------------


def test_a_merged_model_says_what_it_was_made_from_and_how_it_comes_back(store, hub, tmp_path):
    cached(hub, "maker/llama", model_files(), COMMIT)
    adapter = tmp_path / "lora"
    adapter.mkdir()
    path = made(store, origin=Origin(sources(adapter), 240.0))
    (item,) = found()
    assert (item.kind, item.path, item.detail) == (Kind.MERGED, str(path), "merged")
    assert item.made_from == (f"maker/llama @ {COMMIT[:8]}", f"adapter {adapter}")
    assert item.rebuild.words == "made from llama + lora in 4 min 00 s"
    assert (item.rebuild.seconds, item.rebuild.possible, item.rebuild.download) == (240, True, None)
    assert item.trashable
    assert item.made_at is not None


def test_a_quantized_model_says_how_it_was_quantized(store):
    made(store, QUANTIZED, {"recipe": RECIPE})
    (item,) = found()
    assert item.kind is Kind.QUANTIZED
    assert item.detail == "awq by llm-compressor, 4 bit, group size 128"


def test_a_base_that_is_not_in_the_cache_any_more_has_to_be_downloaded_again(store, tmp_path):
    made(store, origin=Origin(sources(tmp_path), 60.0))
    (item,) = found()
    assert item.rebuild.words == (
        "made from llama + lora in 1 min 00 s; its base is not in the Hub's cache any more: "
        "15.00 GiB to download again"
    )
    assert item.rebuild.download == 15 * GIB
    assert item.rebuild.possible


def test_another_revision_of_the_base_is_not_the_one_it_was_made_from(store, hub, tmp_path):
    cached(hub, "maker/llama", model_files(), "f" * 40)
    made(store, origin=Origin(sources(tmp_path), 60.0))
    (item,) = found()
    assert item.rebuild.download == 15 * GIB


def test_an_adapter_that_is_gone_cannot_be_had_again(store, hub, tmp_path):
    cached(hub, "maker/llama", model_files(), COMMIT)
    made(store, origin=Origin(sources(tmp_path / "gone"), 60.0))
    (item,) = found()
    assert not item.rebuild.possible
    assert item.rebuild.words.endswith(f"its adapter {tmp_path / 'gone'} is gone")


def test_of_an_older_record_the_name_and_the_time_of_the_worker_are_told(store):
    path = made(store, told={"method": "streamed", "seconds": 90.0})
    record = json.loads((path / "quantui.json").read_text())
    for name in ("made_from", "seconds"):
        record.pop(name)
    (path / "quantui.json").write_text(json.dumps(record))
    (item,) = found()
    assert item.made_from == ("lora", "adapter cccccccccccc")
    assert item.rebuild.words == "made from lora in 1 min 30 s"
    assert item.rebuild.possible


def test_the_time_of_what_an_earlier_try_began_is_not_known(store, tmp_path):
    made(store, told={"seconds": 3.0}, origin=Origin(sources(tmp_path, size=None), None))
    (item,) = found()
    assert item.rebuild.seconds is None


def test_with_other_sources_in_its_record_an_artifact_is_found_by_the_same_key(store, tmp_path):
    path = made(store, origin=Origin(sources(tmp_path), 60.0))
    assert store.find(MERGED).path == path


def test_one_that_lacks_a_file_is_broken(store):
    path = made(store)
    (path / "config.json").unlink()
    (item,) = found()
    assert item.kind is Kind.BROKEN
    assert "missing or of another size" in item.detail


DAMAGED = {
    "empty": "",
    "a list": "[]",
    "other types": '{"made": 3, "inputs": 4, "made_from": {"base": 1}}',
    "deep": "[" * 9999,
}


@pytest.mark.parametrize("record", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_told_as_far_as_it_can_be(store, record):
    (store.root / "a").mkdir()
    (store.root / "a" / "quantui.json").write_text(record)
    (item,) = found()
    assert item.kind in {Kind.UNFINISHED, Kind.BROKEN}


# Not whole -----------------------------------------------------------------------------------


def test_a_merge_that_was_killed_goes_on(store):
    note_inputs(store.lock_of(MERGED), MERGED.inputs)
    partial = store.partial_of(MERGED)
    partial.mkdir()
    (partial / "merge_journal.jsonl").write_text("{}\n")
    (item,) = found()
    assert (item.kind, item.path) == (Kind.UNFINISHED, str(partial))
    assert item.detail == "half merged: the same run goes on from it"
    assert item.rebuild.possible
    assert item.trashable


def test_what_is_not_proven_yet_says_so(store):
    staged = write(store.stage(QUANTIZED, 0), model_files())
    note_unproven(staged, QUANTIZED.inputs, {})
    (item,) = found()
    assert (item.kind, item.detail) == (Kind.UNFINISHED, "made, not proven yet")


def test_what_did_not_pass_its_proof_says_why(store):
    staged = write(store.stage(QUANTIZED, 0), model_files())
    set_aside(staged, store.path_of(QUANTIZED).with_suffix(".broken"), {"why": "it babbles"})
    (item,) = found()
    assert (item.kind, item.detail) == (Kind.BROKEN, "did not pass its proof: it babbles")


def test_a_folder_that_nothing_explains_is_orphaned(store):
    (store.root / "who-knows").mkdir()
    (store.root / f"{MERGED.folder}.staged").mkdir()
    details = {Path(item.path).name: item for item in found()}
    assert all(item.detail.startswith("orphaned: ") for item in details.values())
    assert not any(item.rebuild.possible for item in details.values())
    assert len(details) == 2


def test_half_deleted_artifacts_are_told(store):
    (store.root / f"{MERGED.folder}.staged-deleting").mkdir()
    (store.root / f"{QUANTIZED.folder}.staged-old").mkdir()
    assert {item.detail for item in found()} == {
        "half deleted",
        "replaced by a newer one, half deleted",
    }


def test_lock_files_are_no_things(store):
    note_inputs(store.lock_of(MERGED), MERGED.inputs)
    assert found() == []


# Being made ----------------------------------------------------------------------------------

HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def maker(store):
    """A process that holds the lock of the merged artifact."""
    note_inputs(store.lock_of(MERGED), MERGED.inputs)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store.lock_of(MERGED)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_what_is_being_made_is_in_use_by_its_maker(store, maker):
    store.partial_of(MERGED).mkdir()
    (item,) = found()
    assert [(use.pid, use.how) for use in item.users] == [(maker.pid, "is making it")]


def test_when_its_maker_is_dead_it_is_in_use_no_more(store, maker):
    store.partial_of(MERGED).mkdir()
    maker.kill()
    maker.wait()
    (item,) = found()
    assert not item.busy


def test_looking_waits_for_nobody_and_keeps_nobody_waiting(store):
    note_inputs(store.lock_of(MERGED), MERGED.inputs)
    store.partial_of(MERGED).mkdir()
    found()
    descriptor = os.open(store.lock_of(MERGED), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


# Beside folders of the user's ----------------------------------------------------------------


def beside(store, tmp_path, **noted):
    lock = store.root / f"{OUT}-0123456789abcdef.lock"
    note_inputs(lock, {**MERGED.inputs, **noted})
    return tmp_path / "results" / "mine"


def test_what_is_unfinished_beside_a_folder_of_the_users_is_told(store, tmp_path):
    out = beside(store, tmp_path, out=str(tmp_path / "results" / "mine"))
    partial = out.with_name("mine.partial")
    partial.mkdir(parents=True)
    (item,) = found()
    assert (item.kind, item.path, item.root) == (Kind.UNFINISHED, str(partial), str(out.parent))
    assert not item.trashable


def test_what_is_broken_there_is_told_by_the_lock_that_knows_it(store, tmp_path):
    broken = tmp_path / "results" / "mine.broken"
    staged = write(tmp_path / "results" / "mine.unproven", model_files())
    set_aside(staged, broken, {"why": "it babbles"})
    beside(store, tmp_path, **{SET_ASIDE: str(broken)})
    (item,) = found()
    assert (item.kind, item.path) == (Kind.BROKEN, str(broken))


def test_a_folder_beside_it_that_no_lock_names_is_the_users_own(store, tmp_path):
    beside(store, tmp_path)
    (tmp_path / "results" / "mine.partial").mkdir(parents=True)
    assert found() == []


def test_a_link_there_is_not_followed(store, tmp_path):
    out = beside(store, tmp_path, out=str(tmp_path / "results" / "mine"))
    (tmp_path / "elsewhere").mkdir()
    out.parent.mkdir()
    out.with_name("mine.partial").symlink_to(tmp_path / "elsewhere")
    assert found() == []
