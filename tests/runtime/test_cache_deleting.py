"""What quantui made, and what the user has in folders, deleted for good: what goes, what stays, what is freed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.cache_deletions import carried_out, deleted, planned
from fixtures.cache_things import artifact, open_in_a_process, own_places

from quantui.domain.caches.deletion import DeletionPlan
from quantui.domain.caches.items import CacheItem, DiskUse, Kind
from quantui.domain.errors import QuantuiError
from quantui.runtime import paths
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.caches.deleting import delete
from quantui.runtime.caches.inventory import collect
from quantui.runtime.caches.trash import restore, trashed_in

OF_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    own_places(monkeypatch, tmp_path)


def trash_of(folder):
    return folder.parent / ".quantui-trash"


def blocks(folder):
    """Bytes on disk of a tree whose files have one name each."""
    return sum(path.lstat().st_blocks * 512 for path in (folder, *folder.rglob("*")))


def test_a_merged_model_goes_and_its_bytes_are_told():
    folder = artifact("owner/base")
    took = blocks(folder)

    done = deleted(folder)

    assert done.gone == [str(folder)]
    assert done.report.freed == done.report.deleted[0].freed == took
    assert not folder.exists()
    assert not trash_of(folder).exists()


def test_hard_links_count_when_the_last_of_them_goes():
    one, other = artifact("owner/one"), artifact("owner/other")
    (other / "more.safetensors").unlink()
    os.link(one / "more.safetensors", other / "more.safetensors")
    os.link(one / "more.safetensors", one / "again.safetensors")
    size = (one / "more.safetensors").stat().st_blocks * 512

    done = deleted(one, other)

    first, last = done.report.deleted
    assert last.freed >= size > 0
    assert done.report.freed == first.freed + last.freed
    assert done.report.freed == done.events[0].item.use.alone + last.item.use.alone + size


def test_a_link_in_it_is_unlinked_and_what_it_leads_to_stays(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years")
    folder = artifact("owner/base")
    (folder / "link").symlink_to(precious)
    (folder / "hop.safetensors").symlink_to(precious / "thesis")

    deleted(folder)

    assert not folder.exists()
    assert (precious / "thesis").read_text() == "years"


def test_folders_and_files_that_may_not_be_written_go_too():
    folder = artifact("owner/base")
    below = folder / "kept"
    below.mkdir()
    (below / "file").write_text("text")
    (below / "file").chmod(0o400)
    below.chmod(0o555)
    (folder / "closed").mkdir(mode=0o000)

    done = deleted(folder)

    assert done.gone == [str(folder)]


def test_a_tree_far_deeper_than_files_can_be_open_goes():
    folder = artifact("owner/base")
    above = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    item = collect(kinds=[Kind.MERGED]).items[str(folder)]

    done = carried_out(DeletionPlan((replace(item, stamp=()),), (), 0, 0))

    # Whatever could be measured of it: it is what was planned, or it is told that it is not.
    assert done.gone == [str(folder)] or folder.exists()


def test_names_that_are_no_text_go_and_come_back():
    folder = artifact("owner/base")
    strange = os.fsencode(folder) + b"/\xff\xfe\n.bin"
    Path(os.fsdecode(strange)).write_bytes(b"x")

    assert deleted(folder).gone == [str(folder)]


@pytest.mark.parametrize("change", ["new", "longer", "gone", "other"])
def test_what_has_changed_since_it_was_looked_at_stays(change):
    folder = artifact("owner/base")
    plan = planned(folder)
    file = folder / "more.safetensors"
    if change == "new":
        (folder / "new.safetensors").write_bytes(b"mine")
    elif change == "longer":
        with file.open("ab") as out:
            out.write(b"more")
    elif change == "gone":
        file.unlink()
    else:
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)

    done = carried_out(plan)

    assert done.why == {str(folder): "it has changed since it was looked at"}
    assert (folder / "quantui.json").is_file()
    assert not trash_of(folder).exists()


def test_deleting_a_hard_link_elsewhere_is_no_change():
    one, other = artifact("owner/one"), artifact("owner/other")
    os.link(one / "more.safetensors", other / "linked.safetensors")
    plan = planned(other)
    (one / "more.safetensors").unlink()

    assert carried_out(plan).gone == [str(other)]


def test_another_thing_in_its_place_stays():
    folder = artifact("owner/base")
    plan = planned(folder)
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    (folder / "mine").write_text("mine")

    assert carried_out(plan).why == {str(folder): "it has changed since it was looked at"}
    assert (folder / "mine").read_text() == "mine"


def test_a_link_in_its_place_stays(tmp_path):
    folder = artifact("owner/base")
    plan = planned(folder)
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)

    done = carried_out(plan)

    assert list(done.why) == [str(folder)]
    assert (moved / "quantui.json").is_file()
    assert folder.is_symlink()


def test_what_is_gone_already_counts_as_deleted():
    folder = artifact("owner/base")
    plan = planned(folder)
    assert carried_out(plan).report.freed > 0

    again = carried_out(plan)

    assert again.gone == [str(folder)]
    assert again.report.freed == 0


def test_what_a_process_opens_after_the_plan_stays_where_it_is():
    folder = artifact("owner/base")
    plan = planned(folder)
    with open_in_a_process(folder / "more.safetensors") as pid:
        done = carried_out(plan)
    assert f"process {pid}" in done.why[str(folder)]
    assert "has files of it open" in done.why[str(folder)]
    assert (folder / "quantui.json").is_file()


def test_what_is_being_made_stays():
    folder = artifact("owner/base")
    plan = planned(folder)
    lock = ArtifactStore().root / f"{folder.name}.lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = carried_out(plan)
    assert "being made" in done.why[str(folder)]
    assert folder.is_dir()


def test_an_engine_that_is_worked_on_stays():
    folder = paths.engines_dir() / "vllm-cpu"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("")
    plan = planned(folder)
    with (paths.engines_dir() / ".vllm-cpu.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = carried_out(plan)
    assert "Another process is working on the engine vllm-cpu" in done.why[str(folder)]
    assert deleted(folder).gone == [str(folder)]


def test_one_that_cannot_go_keeps_none_of_the_others():
    one, other, last = artifact("owner/one"), artifact("owner/other"), artifact("owner/last")
    plan = planned(one, other, last)
    (other / "new").write_text("new")

    done = carried_out(plan)

    assert done.gone == [str(one), str(last)]
    assert list(done.why) == [str(other)]


@pytest.mark.parametrize("escape", ["outside", "dots", "sibling", "unknown"])
def test_a_plan_that_leaves_the_known_folders_is_refused_before_anything_is_touched(
    tmp_path, escape
):
    folder = artifact("owner/base")
    good = collect(kinds=[Kind.MERGED]).items[str(folder)]
    root = str(ArtifactStore().root)
    victim, beside = tmp_path / "victim", Path(f"{root}-other/x")
    victim.mkdir()
    beside.mkdir(parents=True)
    path, root = {
        "outside": (str(victim), root),
        "dots": (f"{root}/../../victim", root),
        "sibling": (str(beside), root),
        "unknown": (str(victim), str(tmp_path)),
    }[escape]
    bad = CacheItem(Kind.MERGED, "bad", path, root, DiskUse())

    with pytest.raises(QuantuiError) as refused:
        delete(DeletionPlan((good, bad), (), 0, 0))

    assert refused.value.code == "cache.outside"
    assert folder.is_dir()
    assert victim.is_dir()


def test_a_link_on_the_way_to_it_is_never_followed(tmp_path):
    victim = tmp_path / "victim"
    (victim / "model").mkdir(parents=True)
    root = tmp_path / "user/vllm"
    root.mkdir(parents=True)
    (root / "link").symlink_to(victim)
    bad = CacheItem(Kind.COMPILED, "bad", f"{root}/link/model", str(root), DiskUse())

    done = carried_out(DeletionPlan((bad,), (), 0, 0))

    assert "is no folder" in done.why[bad.path]
    assert (victim / "model").is_dir()


def test_a_trash_that_is_a_link_is_refused(tmp_path):
    folder = artifact("owner/base")
    (tmp_path / "elsewhere").mkdir()
    trash_of(folder).symlink_to(tmp_path / "elsewhere")

    done = deleted(folder)

    assert "is no folder" in done.why[str(folder)]
    assert folder.is_dir()


def test_stopping_half_way_leaves_nothing_that_looks_whole_and_a_later_deletion_finishes():
    folder = artifact("owner/base")
    for number in range(50):
        (folder / f"shard-{number}").write_bytes(os.urandom(5000))
    took = blocks(folder)
    asked = iter(range(1000))

    done = deleted(folder, cancelled=lambda: next(asked) > 20)

    assert done.report.cancelled or done.report.kept
    assert "stopped" in done.why[str(folder)]
    assert 0 < done.report.freed < took
    assert not folder.exists()
    (left,) = trashed_in(folder.parent)
    assert left.half
    rest = deleted(Path(left.folder))
    assert rest.gone == [left.folder]
    assert not trash_of(folder).exists()


def test_stopping_before_the_first_file_leaves_it_where_it_is():
    folder = artifact("owner/base")
    asked = iter(range(1000))

    done = deleted(folder, cancelled=lambda: next(asked) > 0)

    assert done.why == {str(folder): "stopped"}
    assert (folder / "quantui.json").is_file()
    assert not trash_of(folder).exists()


def test_what_comes_after_a_stop_is_not_begun():
    one, other = artifact("owner/one"), artifact("owner/other")
    asked = iter(range(1000))

    done = deleted(one, other, cancelled=lambda: next(asked) > 3)

    assert done.report.cancelled
    assert str(other) not in {event.item.path for event in done.events[:-1]}
    assert other.is_dir()


@OF_ROOT
def test_what_may_not_be_removed_at_all_is_put_back(tmp_path):
    root = ArtifactStore().root
    folder = artifact("owner/base")
    root.chmod(0o555)
    try:
        done = deleted(folder)
    finally:
        root.chmod(0o755)
    assert "Permission denied" in done.why[str(folder)]
    assert (folder / "quantui.json").is_file()


def test_a_process_that_is_killed_leaves_nothing_that_looks_whole():
    folder = artifact("owner/base")
    for number in range(300):
        (folder / f"shard-{number:03}").write_bytes(b"x")
    code = """
import os, signal, sys
from quantui.domain.caches.deletion import plan_deletion
from quantui.runtime.caches.deleting import delete
from quantui.runtime.caches.inventory import collect
items = collect().items
count = 0
def cancelled():
    global count
    count += 1
    if count == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    return False
list(delete(plan_deletion([items[sys.argv[1]]], items), cancelled=cancelled))
"""
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL

    assert not folder.exists()
    items = collect().items
    assert {item.kind for item in items.values()} == {Kind.TRASH}
    (left,) = trashed_in(folder.parent)
    assert left.half
    assert left.path == str(folder)
    assert not (Path(left.folder) / "it" / "quantui.json").exists()
    assert deleted(Path(left.folder)).gone == [left.folder]


def test_a_compilers_cache_goes_whole(tmp_path):
    cache = tmp_path / "user/triton"
    (cache / "abc").mkdir(parents=True)
    (cache / "abc" / "kernel.so").write_bytes(os.urandom(9000))

    done = deleted(cache)

    assert done.gone == [str(cache)]
    assert not cache.exists()


@pytest.mark.parametrize(
    "kind", [Kind.COMPILED, Kind.MERGED, Kind.RUN, Kind.UNFINISHED, Kind.ENGINE]
)
def test_what_lies_beside_things_in_a_wide_root_is_nobodys(tmp_path, kind):
    (tmp_path / "user/triton").mkdir(parents=True)
    homes = {Kind.COMPILED: tmp_path / "user", Kind.RUN: paths.home()}
    root = homes.get(kind, paths.home())
    root.mkdir(parents=True, exist_ok=True)
    victim = root / "letters"
    victim.mkdir()
    item = CacheItem(kind, "letters", str(victim), str(root), DiskUse())

    done = carried_out(DeletionPlan((item,), (), 0, 0))

    assert "not quantui's to delete" in done.why[str(victim)]
    assert victim.is_dir()


def test_a_folder_that_may_not_be_written_is_moved_away_and_back_as_it_was():
    folder = artifact("owner/base")
    folder.chmod(0o555)

    (gone,) = deleted(folder, to_trash=True).report.deleted
    assert restore(gone.trashed) == folder
    assert folder.stat().st_mode & 0o777 == 0o555

    assert deleted(folder).gone == [str(folder)]
