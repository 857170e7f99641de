"""A Hub cache is compared with the etags that its blobs are named by; what cannot be compared is unknown."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from fixtures.hub_cache import cached
from fixtures.hub_server import Repository
from fixtures.verified_things import (
    COMMIT,
    FILES,
    NAME,
    WEIGHTS,
    blob_of,
    item,
    said,
    snapshot_in,
    verdict,
)

from quantui.domain.caches.items import Kind
from quantui.domain.caches.verification import Soundness

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def snapshot(tmp_path):
    return snapshot_in(tmp_path)


@pytest.fixture
def repo(snapshot):
    return snapshot.parent.parent


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
