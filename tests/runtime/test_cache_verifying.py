"""What lies on disk is read and compared with what it should be; what cannot be compared is said to be unknown."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from fixtures.hub_cache import cached
from fixtures.hub_server import Repository

from quantui.domain.caches.items import CacheItem, DiskUse, Kind
from quantui.domain.caches.verification import Soundness, Verified, Verifying
from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.caches.verifying import verify
from quantui.runtime.made_hashes import Hashing, keep_hashes, read_hashes, record_in

NAME = "proof/llama"
COMMIT = "a" * 40
WEIGHTS = bytes(range(256)) * 20_000
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def item(kind, path, **told):
    return CacheItem(
        kind, told.pop("name", NAME), str(path), str(Path(path).parent), DiskUse(), **told
    )


def verdict(*items, **options):
    """The verdict of the last item."""
    return [event for event in verify(items, **options) if isinstance(event, Verified)][-1]


def said(found):
    return [f"{finding.path}: {finding.what}" for finding in found.findings]


# The Hub's caches ------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(tmp_path):
    return cached(tmp_path / "hub", NAME, FILES)


@pytest.fixture
def repo(snapshot):
    return snapshot.parent.parent


def blob_of(snapshot, name):
    return snapshot / (snapshot / name).readlink()


def test_a_repository_whose_blobs_have_the_hashes_they_are_named_by_is_sound(repo):
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.OK
    assert found.checked_bytes == sum(map(len, FILES.values()))


@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_is_damage_and_names_the_file(repo, snapshot, name):
    blob = blob_of(snapshot, name)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.DAMAGED
    assert said(found) == [f"aaaaaaaa/{name}: has other content than it should"]


def test_a_blob_of_which_a_part_was_never_written_is_damage_and_says_so(repo, snapshot):
    blob = blob_of(snapshot, "model.safetensors")
    size = blob.stat().st_size
    with blob.open("wb") as file:
        file.truncate(size)
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.DAMAGED
    assert "was ever written to the disk" in found.findings[0].what


def test_a_link_whose_blob_is_gone_leaves_the_repository_incomplete(repo, snapshot):
    blob_of(snapshot, "tokenizer.json").unlink()
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.INCOMPLETE
    assert said(found) == ["aaaaaaaa/tokenizer.json: leads to a blob that is missing"]


def test_a_shard_that_the_index_names_and_nobody_downloaded_is_missing(tmp_path):
    index = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    files = {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        SHARDS[0]: b"one",
        SHARDS[1]: b"two",
    }
    repo = cached(tmp_path, NAME, files, lacks=(SHARDS[1],)).parent.parent
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.INCOMPLETE
    assert said(found) == [f"aaaaaaaa/{SHARDS[1]}: was not downloaded, and the model needs it"]


def test_a_repository_of_which_only_small_files_were_asked_for_lacks_nothing(tmp_path):
    repo = cached(tmp_path, NAME, FILES, lacks=("model.safetensors",)).parent.parent
    assert verdict(item(Kind.HUB, repo)).state is Soundness.OK


def test_only_the_revision_that_is_asked_for_is_read(repo, tmp_path):
    other = cached(tmp_path / "hub", NAME, {"config.json": b"other"}, "b" * 40, branch=False)
    blob_of(other, "config.json").write_bytes(b"wrong")
    whole, part = item(Kind.HUB, repo), item(Kind.REVISION, repo / "snapshots" / COMMIT)
    assert verdict(part).state is Soundness.OK
    assert verdict(whole).state is Soundness.DAMAGED


def test_what_revisions_share_is_read_once(repo, tmp_path):
    cached(tmp_path / "hub", NAME, FILES, "b" * 40, branch=False)
    assert verdict(item(Kind.HUB, repo)).checked_bytes == sum(map(len, FILES.values()))


def test_a_payload_of_the_shared_store_is_checked_by_the_name_of_the_repositorys_blob(
    repo, snapshot, tmp_path
):
    blob = blob_of(snapshot, "model.safetensors")
    payload = tmp_path / "hub" / "blobs" / "ab" / ("ab" * 32)
    payload.parent.mkdir(parents=True)
    blob = blob.parent / blob.name
    blob.rename(payload)
    blob.symlink_to(Path("../../blobs/ab") / payload.name)
    assert verdict(item(Kind.HUB, repo)).state is Soundness.OK
    payload.write_bytes(b"\0" * len(WEIGHTS))
    assert verdict(item(Kind.HUB, repo)).state is Soundness.DAMAGED


def test_a_blob_whose_name_is_no_hash_is_unknown(repo, snapshot):
    link = snapshot / "config.json"
    blob = blob_of(snapshot, "config.json")
    blob.rename(blob.with_name("5-of-a-strange-store"))
    link.unlink()
    link.symlink_to("../../blobs/5-of-a-strange-store")
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.UNKNOWN
    assert "no hash" in found.findings[0].what


def test_a_link_out_of_the_cache_is_not_followed(repo, snapshot, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"not a model")
    (snapshot / "extra").symlink_to(secret)
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.UNKNOWN
    assert said(found) == ["aaaaaaaa/extra: leads out of the cache, and is not read"]


def test_a_cache_without_links_is_checked_by_the_kept_listing_where_there_is_one(repo, snapshot):
    pytest.importorskip("huggingface_hub", minversion="2.0")
    for name in FILES:
        blob = blob_of(snapshot, name)
        (snapshot / name).unlink()
        blob.rename(snapshot / name)
    assert verdict(item(Kind.HUB, repo)).state is Soundness.UNKNOWN
    keep_listing(repo)
    assert verdict(item(Kind.HUB, repo)).state is Soundness.OK
    (snapshot / "model.safetensors").write_bytes(b"\1" * len(WEIGHTS))
    assert verdict(item(Kind.HUB, repo)).state is Soundness.DAMAGED


def keep_listing(repo, files=FILES):
    """As huggingface_hub keeps what the Hub listed: of files in LFS the name that git has of their pointer."""
    from huggingface_hub import _tree_cache as trees

    entries = {}
    for name, content in files.items():
        told = Repository({name: content}).object_id(name)
        if len(told) == 64:
            text = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
            text %= (told.encode(), len(content))
            told = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
        entries[name] = trees.TreeCacheEntry(len(content), told)
    trees.write_tree_cache(str(repo), COMMIT, entries)


def test_what_the_hub_lists_beside_the_model_is_a_remark_and_no_fault(repo):
    pytest.importorskip("huggingface_hub", minversion="2.0")
    keep_listing(repo, {**FILES, "README.md": b"#"})
    found = verdict(item(Kind.HUB, repo))
    assert found.state is Soundness.OK
    assert said(found) == ["aaaaaaaa: another file of the repository is on the Hub alone"]


def test_a_listing_that_is_damaged_is_as_none(repo):
    pytest.importorskip("huggingface_hub", minversion="2.0")
    (repo / "trees").mkdir()
    (repo / "trees" / f"{COMMIT}.json").write_text("[]")
    assert verdict(item(Kind.HUB, repo)).state is Soundness.OK


def test_a_repository_without_a_revision_is_incomplete(tmp_path):
    repo = tmp_path / "models--proof--llama"
    repo.mkdir()
    assert verdict(item(Kind.HUB, repo)).state is Soundness.INCOMPLETE


# What quantui made -----------------------------------------------------------------------------------

KEY = ArtifactKey("proof/my-lora", "merged", {"base": "b", "adapter": "a"})


@pytest.fixture
def made():
    store = ArtifactStore()
    store.root.mkdir(parents=True)
    staged = store.stage(KEY, 0)
    staged.mkdir()
    (staged / "model.safetensors").write_bytes(WEIGHTS)
    (staged / "config.json").write_text("{}")
    return store.commit(KEY, staged, {}).path


def hashed(folder):
    hashing = Hashing()
    hashing.begin(folder, 3600.0)
    hashing.finish(lambda: False)
    return read_hashes(record_in(folder))


def test_the_hashes_of_what_a_run_makes_are_those_that_sha256sum_gives(made):
    assert hashed(made) == {
        "model.safetensors": hashlib.sha256(WEIGHTS).hexdigest(),
        "config.json": hashlib.sha256(b"{}").hexdigest(),
    }
    assert ArtifactStore().find(KEY) is not None


def test_a_checkpoint_with_its_recorded_hashes_is_sound(made):
    hashed(made)
    found = verdict(item(Kind.MERGED, made))
    assert (found.state, found.checked_bytes) == (Soundness.OK, len(WEIGHTS) + 2)


def test_a_changed_checkpoint_is_damaged(made):
    hashed(made)
    (made / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    found = verdict(item(Kind.MERGED, made))
    assert said(found) == ["model.safetensors: has other content than it should"]


def test_a_checkpoint_that_lost_a_file_is_incomplete(made):
    hashed(made)
    (made / "model.safetensors").unlink()
    found = verdict(item(Kind.MERGED, made))
    assert found.state is Soundness.INCOMPLETE
    assert said(found) == ["model.safetensors: is missing"]


def test_a_record_without_hashes_makes_it_unknown_once_and_from_then_on_changes_are_seen(made):
    found = verdict(item(Kind.MERGED, made))
    assert found.state is Soundness.UNKNOWN
    assert "recorded now" in found.findings[0].what
    assert found.findings[0].fix
    assert verdict(item(Kind.MERGED, made)).state is Soundness.OK
    (made / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    assert verdict(item(Kind.MERGED, made)).state is Soundness.DAMAGED


def test_a_size_that_is_wrong_is_damage_without_hashes_too_and_no_hash_is_recorded(made):
    (made / "model.safetensors").write_bytes(b"short")
    found = verdict(item(Kind.MERGED, made))
    assert found.state is Soundness.DAMAGED
    assert "has 5 bytes and should have 5,120,000" in found.findings[0].what
    assert read_hashes(record_in(made)) == {}


def test_a_record_that_names_files_elsewhere_does_not_make_anybody_read_them(made, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("x")
    record = json.loads((made / "quantui.json").read_text())
    record["files"] |= {"../../outside": 1, str(outside): 1}
    (made / "quantui.json").write_text(json.dumps(record))
    found = verdict(item(Kind.MERGED, made))
    outside_told = [finding for finding in found.findings if "lies outside" in finding.what]
    assert len(outside_told) == 2
    assert set(read_hashes(record_in(made))) == {"model.safetensors", "config.json"}


def test_a_folder_that_is_no_checkpoint_any_more_is_incomplete(made):
    (made / "quantui.json").unlink()
    assert verdict(item(Kind.MERGED, made)).state is Soundness.INCOMPLETE


def test_hashes_are_kept_in_the_folder_they_are_of_also_when_it_is_moved_meanwhile(made):
    moved = made.with_name("moved")
    held = os.open(made, os.O_RDONLY)
    made.rename(moved)
    made.mkdir()
    (made / "quantui.json").write_text('{"another": true}')
    try:
        keep_hashes(Path(f"/proc/self/fd/{held}"), {"config.json": "0" * 64})
    finally:
        os.close(held)
    assert read_hashes(record_in(moved)) == {"config.json": "0" * 64}
    assert record_in(made) == {"another": True}


def test_hashing_stops_at_once_when_the_run_is_cancelled(made):
    with (made / "huge").open("wb") as file:
        file.truncate(1 << 40)
    hashing = Hashing()
    hashing.begin(made, 1e6)
    hashing.finish(lambda: True)
    assert "huge" not in read_hashes(record_in(made))


# Environments and folders ----------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path):
    site = tmp_path / "vllm-cpu" / "lib" / "python3.11" / "site-packages"
    (site / "thing").mkdir(parents=True)
    (site / "thing" / "__init__.py").write_text("x = 1\n")
    (site / "thing" / "__init__.pyc").write_bytes(b"compiled here")
    told = base64.urlsafe_b64encode(hashlib.sha256(b"x = 1\n").digest()).rstrip(b"=").decode()
    (site / "thing-1.0.dist-info").mkdir()
    (site / "thing-1.0.dist-info" / "RECORD").write_text(
        f"thing/__init__.py,sha256={told},6\nthing/__init__.pyc,sha256=AAAA,1\n"
        "thing-1.0.dist-info/RECORD,,\n../../../../../outside,sha256=AAAA,1\n"
    )
    return tmp_path / "vllm-cpu"


def test_an_environment_is_checked_by_what_its_wheels_recorded(engine):
    assert verdict(item(Kind.ENGINE, engine)).state is Soundness.OK
    module = engine / "lib/python3.11/site-packages/thing/__init__.py"
    module.write_text("x = 2\n")
    found = verdict(item(Kind.ENGINE, engine))
    assert said(found) == [
        "lib/python3.11/site-packages/thing/__init__.py: has other content than it should"
    ]
    module.unlink()
    assert verdict(item(Kind.ENGINE, engine)).state is Soundness.INCOMPLETE


def test_a_downloaded_folder_is_checked_by_the_etags_beside_its_files(tmp_path):
    folder = tmp_path / "model"
    kept = folder / ".cache" / "huggingface" / "download"
    kept.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    etag = hashlib.sha256(WEIGHTS).hexdigest()
    at = (folder / "model.safetensors").stat().st_mtime
    (kept / "model.safetensors.metadata").write_text(f"{COMMIT}\n{etag}\n{at}\n")
    assert verdict(item(Kind.FOLDER, folder)).state is Soundness.OK
    (folder / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    os.utime(folder / "model.safetensors", (at, at))
    assert verdict(item(Kind.FOLDER, folder)).state is Soundness.DAMAGED
    os.utime(folder / "model.safetensors", (at + 60, at + 60))
    found = verdict(item(Kind.FOLDER, folder))
    assert said(found) == ["model.safetensors: was changed after it was downloaded"]


def test_a_folder_of_which_nobody_says_anything_is_unknown(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert verdict(item(Kind.FOLDER, tmp_path)).state is Soundness.UNKNOWN


@pytest.mark.parametrize(
    "kind",
    sorted(
        set(Kind) - {Kind.HUB, Kind.REVISION, Kind.MERGED, Kind.QUANTIZED, Kind.FOLDER, Kind.ENGINE}
    ),
)
def test_what_cannot_be_compared_is_unknown_and_says_why(tmp_path, kind):
    found = verdict(item(kind, tmp_path))
    assert found.state is Soundness.UNKNOWN
    assert found.findings[0].what


# How it reads ----------------------------------------------------------------------------------------


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
