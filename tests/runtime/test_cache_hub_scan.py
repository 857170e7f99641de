"""A Hub cache is listed with huggingface_hub's sizes, and what deleting would free is what deleting it frees.

QUANTUI_CHAOS_SEED says which caches are drawn: a failure names its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from fixtures.made_caches import MadeRepository, RandomCache, make_cache, sparse
from fixtures.small_disks import small_disk
from huggingface_hub import DeleteCacheStrategy, scan_cache_dir
from huggingface_hub.utils import _shared_blobs

from quantui.domain.caches.deletion import freed_by, on_disk
from quantui.domain.caches.items import CacheItem, Kind, ScanProblem
from quantui.runtime.caches.hub_scan import hub_items

SEED = int(os.environ.get("QUANTUI_CHAOS_SEED", time.time_ns() % 1_000_000))
CACHES = range(SEED, SEED + 6)
BLOCK = 4096


def scanned(root):
    """Items by path, and problems."""
    items, problems = {}, []
    for found in hub_items(root):
        if isinstance(found, CacheItem):
            items[found.path] = found
        else:
            problems.append(found)
    return items, problems


def of(items, kind):
    return [item for item in items.values() if item.kind is kind]


def random_cache(tmp_path, seed):
    root = tmp_path / "hub"
    RandomCache(root, random.Random(seed)).make()
    return root


def bytes_on_disk(folder):
    """What every inode below a folder takes, each once."""
    taken = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(Path(above, name))
            taken[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(taken.values())


def delete(root, items):
    """Delete things of a cache as huggingface_hub does, in one go; gives the bytes that this freed."""
    info = scan_cache_dir(root)
    nothing = DeleteCacheStrategy(
        0, frozenset(), frozenset(), frozenset(), frozenset(), cache_dir=info.cache_dir
    )
    repos = frozenset(Path(item.path) for item in items if item.kind is Kind.HUB)
    blobs = frozenset(
        Path(item.path) for item in items if item.kind is Kind.INCOMPLETE and item.parent
    )
    strategies = [dataclasses.replace(nothing, repos=repos, blobs=blobs)]
    for repo in info.repos:
        commits = [
            Path(item.path).name
            for item in items
            if item.kind is Kind.REVISION and item.parent == str(repo.repo_path)
        ]
        if commits:
            alone = dataclasses.replace(info, repos=frozenset({repo}))
            strategies.append(alone.delete_revisions(*commits))
    before = bytes_on_disk(root.parent)
    for strategy in strategies:
        strategy.execute()
    for item in items:
        if item.kind is Kind.INCOMPLETE and not item.parent:
            _shared_blobs.sweep_shared_blob(Path(item.path), cache_dir=root)
    return before - bytes_on_disk(root.parent)


@pytest.fixture(autouse=True)
def quiet():
    """huggingface_hub warns of what this deletes twice."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", CACHES)
def test_repositories_and_revisions_have_the_sizes_that_huggingface_hub_gives(tmp_path, seed):
    root = random_cache(tmp_path, seed)
    theirs = scan_cache_dir(root)

    items, _ = scanned(root)

    whole = {item.path: item for item in of(items, Kind.HUB) if "damaged: " not in item.detail}
    assert {path: (item.use.apparent, item.files) for path, item in whole.items()} == {
        str(repo.repo_path): (repo.size_on_disk, repo.nb_files) for repo in theirs.repos
    }
    revisions = {
        path: (item.use.apparent, item.detached)
        for path, item in items.items()
        if item.kind is Kind.REVISION and item.parent in whole
    }
    assert revisions == {
        str(one.snapshot_path): (one.size_on_disk, not one.refs)
        for repo in theirs.repos
        for one in repo.revisions
    }


@pytest.mark.parametrize("seed", CACHES)
def test_unfinished_downloads_are_those_that_huggingface_hub_finds(tmp_path, seed):
    root = random_cache(tmp_path, seed)

    items, _ = scanned(root)

    assert {
        path: item.use.apparent for path, item in items.items() if path.endswith(".incomplete")
    } == {str(one.file_path): one.size_on_disk for one in scan_cache_dir(root).incomplete_files}


@pytest.mark.parametrize("seed", CACHES)
def test_what_huggingface_hub_does_not_list_is_told_as_damaged_or_as_no_repository(tmp_path, seed):
    root = random_cache(tmp_path, seed)
    theirs = scan_cache_dir(root)
    listed = {repo.repo_path.name for repo in theirs.repos} | {".locks", "CACHEDIR.TAG", "blobs"}

    items, problems = scanned(root)

    unlisted = {path.name for path in root.iterdir()} - listed
    assert {Path(problem.path).name for problem in problems} == unlisted
    assert len(theirs.warnings) == len(unlisted)
    damaged = [item for item in of(items, Kind.HUB) if "damaged: " in item.detail]
    assert {Path(item.path).name for item in damaged} == {
        name for name in unlisted if name.startswith(("models--", "datasets--", "spaces--"))
    }


@pytest.mark.parametrize("seed", CACHES)
def test_deleting_any_choice_of_things_frees_what_they_say_together(tmp_path, seed):
    root = random_cache(tmp_path, seed)
    draw = random.Random(seed)
    items, _ = scanned(root)
    chosen = {item.path: item for item in items.values() if not item.keep and draw.random() < 0.5}
    for repo in of(items, Kind.HUB):
        parts = [item for item in of(items, Kind.REVISION) if item.parent == repo.path]
        if parts and all(part.path in chosen for part in parts):
            # huggingface_hub deletes the whole repository with its last revision.
            chosen[repo.path] = repo
    expected = freed_by(chosen.values())
    choice = [item for item in chosen.values() if item.parent not in chosen]

    assert delete(root, choice) == expected


@pytest.mark.parametrize("seed", CACHES)
def test_repositories_take_what_their_folders_and_shared_blobs_take(tmp_path, seed):
    root = random_cache(tmp_path, seed)
    items, _ = scanned(root)
    folders = [Path(item.path) for item in of(items, Kind.HUB)]
    taken = {}
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            status = path.lstat()
            taken[status.st_dev, status.st_ino] = status.st_blocks * 512
            if path.is_symlink() and "/blobs/" in os.path.realpath(path).removeprefix(str(root)):
                behind = Path(os.path.realpath(path))
                if behind.parent.parent == root / "blobs" and behind.exists():
                    for one in (behind, behind.with_name(f"{behind.name}.refs")):
                        status = one.lstat()
                        taken[status.st_dev, status.st_ino] = status.st_blocks * 512

    assert on_disk(of(items, Kind.HUB)) == sum(taken.values())


def test_the_total_is_the_one_that_hf_cache_ls_prints(tmp_path):
    make_cache(tmp_path / "hub", repositories=12, files=600, total=50 * 10**9)

    items, problems = scanned(tmp_path / "hub")

    total = sum(item.use.apparent for item in of(items, Kind.HUB))
    assert total == scan_cache_dir(tmp_path / "hub").size_on_disk == 50 * 10**9
    assert not problems


def test_a_blob_of_two_revisions_is_freed_with_the_second(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/model")
    blob = repo.blob("weights", size=3 * BLOCK, content=b"w" * 3 * BLOCK)
    repo.revision("1", {"model.safetensors": blob}, refs=["main"])
    repo.revision("2", {"model.safetensors": blob})
    items, _ = scanned(tmp_path / "hub")
    first, second = of(items, Kind.REVISION)

    assert first.use.shared == second.use.shared == 3 * BLOCK
    assert freed_by([first, second]) - first.use.frees - second.use.frees == 3 * BLOCK


def test_a_shared_blob_is_freed_with_the_last_revision_of_the_last_repository(tmp_path):
    root = tmp_path / "hub"
    content = b"w" * 3 * BLOCK
    made = {}
    for name, revisions in (("owner/base", 2), ("owner/tuned", 3)):
        repo = MadeRepository(root, name)
        blob = repo.shared("weights", size=3 * BLOCK, content=content)
        for number in range(revisions):
            repo.revision(f"{name} {number}", {"model.safetensors": blob})
        made[name] = str(repo.path)
    items, _ = scanned(root)
    base = [item for item in of(items, Kind.REVISION) if item.parent == made["owner/base"]]
    tuned = [item for item in of(items, Kind.REVISION) if item.parent == made["owner/tuned"]]
    links = freed_by([*base, *tuned]) - 4 * BLOCK

    # The payload, and the list of its references.
    assert freed_by([items[path] for path in made.values()]) > 4 * BLOCK
    assert freed_by([base[0], *tuned]) < links
    assert freed_by([items[made["owner/base"]], *tuned[:2]]) < 4 * BLOCK + links


@pytest.mark.parametrize("revisions", [(2, 3), (1, 4), (3, 1)])
def test_a_blob_hard_linked_into_another_repository_is_freed_with_all_revisions_of_both(
    tmp_path, revisions
):
    root = tmp_path / "hub"
    first, second = MadeRepository(root, "a/first"), MadeRepository(root, "b/second")
    name = first.blob("weights", size=9 * BLOCK, content=b"w" * 9 * BLOCK)
    os.link(first.path / "blobs" / name, second.path / "blobs" / name)
    for repo, count in zip((first, second), revisions, strict=True):
        for number in range(count):
            repo.revision(f"{repo.name} {number}", {"model.safetensors": name})
    items, _ = scanned(root)
    every = of(items, Kind.REVISION)

    whole = freed_by(every)
    for left_out in every:
        rest = [item for item in every if item is not left_out]
        assert whole - freed_by(rest) >= 9 * BLOCK
    assert whole >= 9 * BLOCK


def test_a_blob_with_a_name_elsewhere_stays(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/model")
    blob = repo.blob("weights", size=9 * BLOCK, content=b"w" * 9 * BLOCK)
    repo.revision("1", {"model.safetensors": blob}, refs=["main"])
    os.link(repo.path / "blobs" / blob, tmp_path / "mine.safetensors")
    items, _ = scanned(tmp_path / "hub")

    assert items[str(repo.path)].use.shared == 9 * BLOCK
    assert items[str(repo.path)].use.frees < 9 * BLOCK


def test_holes_of_sparse_files_take_nothing(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/model")
    repo.revision("1", {"model.safetensors": repo.blob("weights", size=10**12)}, refs=["main"])
    items, _ = scanned(tmp_path / "hub")

    assert items[str(repo.path)].use.apparent == 10**12
    assert items[str(repo.path)].use.on_disk < 100 * BLOCK


def test_a_revision_says_which_branches_and_tags_name_it(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/data", "datasets")
    blob = repo.blob("data", size=100)
    repo.revision("a" * 40, {"data/x.parquet": blob}, refs=["main", "refs/pr/1", "v1.0"])
    repo.revision("b" * 40, {"data/x.parquet": blob})
    items, _ = scanned(tmp_path / "hub")
    named, detached = of(items, Kind.REVISION)

    assert (named.detail, named.detached) == ("main, refs/pr/1, v1.0", False)
    assert (detached.detail, detached.detached) == ("no branch or tag names it", True)
    assert named.name == "owner/data @ aaaaaaaa"
    (whole,) = of(items, Kind.HUB)
    assert (whole.name, whole.detail) == ("owner/data", "dataset, 2 revisions, 1 file")
    assert whole.rebuild is not None
    assert (whole.rebuild.words, whole.rebuild.download) == ("download owner/data again", 100)


def test_blobs_that_no_revision_refers_to_are_rows_and_not_in_the_size(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/model")
    repo.revision("1", {"config.json": repo.blob("config", size=100)}, refs=["main"])
    lost = [repo.blob(number, size=5000, content=b"x" * 5000) for number in range(2)]
    part = repo.incomplete("weights", size=7 << 20)
    items, _ = scanned(tmp_path / "hub")
    whole = items[str(repo.path)]

    assert whole.use.apparent == 100
    assert whole.detail == (
        "1 revision, 1 file, 1 unfinished download (7.0 MiB), "
        "2 blobs that no revision refers to (9.8 KiB)"
    )
    rows = {item.path: item for item in of(items, Kind.INCOMPLETE)}
    assert set(rows) == {str(part), *(str(repo.path / "blobs" / name) for name in lost)}
    assert all(item.parent == whole.path for item in rows.values())
    assert rows[str(repo.path / "blobs" / lost[0])].use.frees == 2 * BLOCK


def test_shared_blobs_that_nothing_refers_to_are_rows_of_their_own(tmp_path):
    root = tmp_path / "hub"
    repo = MadeRepository(root, "owner/model")
    repo.shared("weights", size=3 * BLOCK, content=b"w" * 3 * BLOCK)
    shutil.rmtree(repo.path)
    items, _ = scanned(root)
    (stray,) = items.values()

    assert (stray.kind, stray.parent, stray.keep) == (Kind.INCOMPLETE, None, "")
    assert delete(root, [stray]) == stray.use.frees == 4 * BLOCK


def test_a_shared_blob_without_its_list_is_kept_as_huggingface_hub_keeps_it(tmp_path):
    root = tmp_path / "hub"
    repo = MadeRepository(root, "owner/model")
    blob = repo.shared("weights", size=3 * BLOCK, content=b"w" * 3 * BLOCK)
    payload = Path(os.path.realpath(repo.path / "blobs" / blob))
    payload.with_name(f"{payload.name}.refs").unlink()
    items, _ = scanned(root)
    whole = items[str(repo.path)]
    assert whole.use.shared == 3 * BLOCK

    assert delete(root, [whole]) == whole.use.frees
    (stray,) = scanned(root)[0].values()
    assert "list of references is missing" in stray.keep


def test_a_repository_is_used_when_its_weights_are_read_not_its_configuration(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/model")
    files = {"config.json": 700, "model.safetensors": 5_000_000}
    blobs = {name: repo.blob(name, size=size) for name, size in files.items()}
    repo.revision("1", blobs, refs=["main"])
    os.utime(repo.path / "blobs" / blobs["config.json"], (9000, 1000))
    os.utime(repo.path / "blobs" / blobs["model.safetensors"], (5000, 1000))
    items, _ = scanned(tmp_path / "hub")

    assert items[str(repo.path)].used_at == 5000
    assert items[str(repo.path)].made_at == 1000


def test_a_revision_with_a_link_out_of_its_repository_goes_only_with_the_whole(tmp_path):
    root = tmp_path / "hub"
    repo = MadeRepository(root, "owner/model")
    sparse(tmp_path / "mine.bin", 12_345)
    snapshot = repo.revision("1", {"config.json": repo.blob("config", size=100)}, refs=["main"])
    (snapshot / "mine.bin").symlink_to(tmp_path / "mine.bin")
    items, _ = scanned(root)

    assert items[str(snapshot)].use.apparent == 12_445
    assert "leads out of its repository" in items[str(snapshot)].keep
    assert items[str(repo.path)].keep == ""
    delete(root, [items[str(repo.path)]])
    assert (tmp_path / "mine.bin").stat().st_size == 12_345


def test_a_repository_that_is_a_link_frees_the_link(tmp_path):
    root = tmp_path / "hub"
    repo = MadeRepository(tmp_path / "elsewhere", "owner/model")
    repo.revision("1", {"weights": repo.blob("weights", size=9000, content=b"w" * 9000)})
    root.mkdir()
    (root / repo.path.name).symlink_to(repo.path)
    items, _ = scanned(root)
    (item,) = items.values()

    assert item.use.apparent == scan_cache_dir(root).size_on_disk == 9000
    assert delete(root, [item]) == item.use.frees
    assert (repo.path / "blobs").is_dir()


def test_a_damaged_repository_is_told_and_goes_only_as_a_whole(tmp_path):
    repo = MadeRepository(tmp_path / "hub", "owner/model")
    repo.revision("1", {"config.json": repo.blob("config", size=100)}, refs=["main"])
    repo.ref("v2", "d" * 40)
    items, problems = scanned(tmp_path / "hub")

    assert items[str(repo.path)].detail.endswith(
        "damaged: v2 names dddddddddddd, which is not there"
    )
    assert items[str(repo.path)].keep == ""
    assert all("damaged" in item.keep for item in of(items, Kind.REVISION))
    assert [problem.path for problem in problems] == [str(repo.path)]


def test_what_is_no_repository_is_left_alone(tmp_path):
    root = tmp_path / "hub"
    (root / ".locks").mkdir(parents=True)
    (root / "CACHEDIR.TAG").touch()
    (root / "my notes").mkdir()
    items, problems = scanned(root)

    assert not items
    assert [problem.path for problem in problems] == [str(root / "my notes")]


def test_repositories_come_one_by_one_and_what_vanishes_is_left_out(tmp_path):
    root = tmp_path / "hub"
    for name in ("a/first", "b/second", "c/third"):
        repo = MadeRepository(root, name)
        repo.revision(name, {"weights": repo.blob("weights", size=10)}, refs=["main"])
    found = hub_items(root)
    first = next(found)

    shutil.rmtree(root / "models--b--second")
    assert isinstance(first, CacheItem)
    assert [first.name, *(one.name for one in found if one.kind is Kind.HUB)] == [
        "a/first",
        "c/third",
    ]


def test_repositories_that_others_write_and_delete_meanwhile_do_no_harm(tmp_path):
    root = tmp_path / "hub"
    quiet_one = MadeRepository(root, "a/quiet")
    blob = quiet_one.blob("weights", size=777)
    quiet_one.revision("1", {"model.safetensors": blob}, refs=["main"])
    ended = threading.Event()

    def write_and_delete():
        while not ended.is_set():
            repo = MadeRepository(root, "b/restless")
            blobs = {f"a/{one}": repo.blob(one, size=one) for one in range(20)}
            repo.revision("1", blobs, refs=["main"])
            shutil.rmtree(repo.path)

    writer = threading.Thread(target=write_and_delete)
    writer.start()
    try:
        for _ in range(60):
            items, _ = scanned(root)
            assert items[str(quiet_one.path)].use.apparent == 777
    finally:
        ended.set()
        writer.join()


def test_blobs_that_share_extents_with_copies_free_less(tmp_path):
    with small_disk("btrfs", 128 << 20, tmp_path / "disk") as disk:
        repo = MadeRepository(disk.seen / "hub", "owner/model")
        blob = repo.blob("weights", size=4 << 20, content=os.urandom(4 << 20))
        repo.revision("1", {"model.safetensors": blob}, refs=["main"])
        copy = ["cp", "--reflink=always", repo.path / "blobs" / blob, disk.seen / "copy"]
        subprocess.run(copy, check=True)
        subprocess.run(["sync", "-f", disk.seen], check=True)
        command = [*disk.within, sys.executable, "-c", _SHARED, str(disk.at / "hub")]
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")

    assert told.stdout.split() == ["hub", str(4 << 20), "revision", str(4 << 20)]


_SHARED = """
import sys
import tempfile
from quantui.runtime.caches.hub_scan import hub_items
for item in hub_items(sys.argv[1]):
    print(item.kind, item.use.shared)
"""


def test_a_cache_that_is_not_there_has_nothing(tmp_path):
    assert not list(hub_items(tmp_path / "none"))


def test_a_folder_that_this_user_may_not_read_is_a_problem(open_folder):
    root = open_folder / "hub"
    for name in ("a/first", "b/second"):
        repo = MadeRepository(root, name)
        repo.revision(name, {"weights": repo.blob("weights", size=10)}, refs=["main"])
    with unreadable(root / "models--a--first" / "snapshots"):
        items, problems = scanned(root)

    assert {item.name for item in of(items, Kind.HUB)} == {"a/first", "b/second"}
    assert any("Permission denied" in problem.what for problem in problems)


def test_names_that_are_no_utf_8_are_kept_as_they_are(tmp_path):
    root = tmp_path / "hub"
    repo = MadeRepository(root, os.fsdecode(b"owner/m\xff"))
    repo.revision("1", {os.fsdecode(b"\xfe.bin"): repo.blob("x", size=3)}, refs=["main"])
    items, problems = scanned(root)

    assert os.fsencode(of(items, Kind.HUB)[0].path).endswith(b"models--owner--m\xff")
    assert not problems


@pytest.fixture
def open_folder(tmp_path):
    """A folder that another user may reach, where this process is root and becomes one."""
    if os.geteuid() == 0:
        path = tmp_path
        while path != Path(tempfile.gettempdir()) and path != path.parent:
            path.chmod(0o755)
            path = path.parent
    return tmp_path


@contextlib.contextmanager
def unreadable(folder):
    """``folder`` as one that this process may not read, root or not."""
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_every_problem_is_one_for_a_person(tmp_path):
    root = random_cache(tmp_path, SEED)
    for problem in scanned(root)[1]:
        assert isinstance(problem, ScanProblem)
        assert problem.what.endswith(".")
        assert problem.fix


def test_an_old_revision_is_not_in_use_because_the_new_one_is(tmp_path):
    root = tmp_path / "hub"
    repo = MadeRepository(root, "a/model")
    shared, old = repo.blob("weights", size=4 << 20), repo.blob("config of old", size=4 << 20)
    repo.revision("old", {"model.safetensors": shared, "more.bin": old})
    repo.revision("new", {"model.safetensors": shared}, refs=["main"])
    for blob, at in ((old, 1_000_000_000), (shared, 1_700_000_000)):
        os.utime(repo.path / "blobs" / blob, (at, at))
    used = {one.detached: one.used_at for one in hub_items(root) if one.kind is Kind.REVISION}
    assert used == {True: 1_000_000_000, False: 1_700_000_000}
