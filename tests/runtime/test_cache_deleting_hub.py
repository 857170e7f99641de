"""Deleting in a cache of huggingface_hub: by its own strategy, in an order that leaves nothing that looks whole."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from fixtures.cache_deletions import carried_out, deleted, planned
from fixtures.cache_things import open_in_a_process, own_places
from fixtures.made_caches import MadeRepository, digest
from huggingface_hub import scan_cache_dir

from quantui.domain.caches.items import Kind
from quantui.runtime.caches.inventory import collect

HUB = [Kind.HUB, Kind.REVISION, Kind.INCOMPLETE]
COMMIT, OTHER = "a" * 40, "b" * 40
NAME = f"owner/model-{os.getpid()}"
"""No process of another test may have been started with it."""


@pytest.fixture
def root(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


def model(root, name=NAME, *, commits=(COMMIT,), kind="models"):
    """Each revision has a file of its own and its configuration; all have the weights."""
    repo = MadeRepository(root, name, kind)
    weights = repo.blob("weights", size=50_000, content=os.urandom(50_000))
    for commit in commits:
        config = repo.blob("config", commit, size=20, content=b'{"model_type": "x"}')
        own = repo.blob("own", commit, size=9_000, content=os.urandom(9_000))
        files = {"config.json": config, "model.safetensors": weights, "sub/own.bin": own}
        repo.revision(commit, files, refs=["main"] if commit == COMMIT else [])
    return repo


def revision(repo, commit=COMMIT):
    return repo.path / "snapshots" / commit


def on_disk(root):
    """Bytes on disk below ``root``, each inode once."""
    found = {}
    for folder, _, names in os.walk(root):
        for path in (folder, *(f"{folder}/{name}" for name in names)):
            status = os.lstat(path)
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def healthy(root):
    """What huggingface_hub lists; it warns of nothing."""
    info = scan_cache_dir(root)
    assert info.warnings == []
    return info


@contextmanager
def lock_of(root, repo, blob):
    """While this lasts, somebody downloads the blob."""
    folder = root / ".locks" / repo.path.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{blob}.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def test_a_revision_goes_with_the_blobs_that_it_alone_has(root):
    repo = model(root, commits=(COMMIT, OTHER))
    before = on_disk(root)

    done = deleted(revision(repo, OTHER))

    assert done.gone == [str(revision(repo, OTHER))]
    assert done.report.freed == before - on_disk(root) > 9000
    (left,) = next(iter(healthy(root).repos)).revisions
    assert left.commit_hash == COMMIT
    assert len(list((repo.path / "blobs").iterdir())) == 3


def test_a_revision_takes_its_branch_along(root):
    repo = model(root, commits=(COMMIT, OTHER))

    deleted(revision(repo))

    assert not (repo.path / "refs" / "main").exists()
    assert healthy(root).warnings == []


def test_a_repository_goes_whole(root):
    repo = model(root, commits=(COMMIT, OTHER))
    repo.incomplete("more", size=5000)
    repo.blob("forgotten", size=5000, content=os.urandom(5000))
    (repo.path / ".no_exist" / COMMIT).mkdir(parents=True)
    before = on_disk(root)

    done = deleted(repo.path)

    assert not repo.path.exists()
    assert done.report.freed == before - on_disk(root)


def test_all_revisions_of_a_repository_in_one_plan_leave_no_folder(root):
    repo = model(root, commits=(COMMIT, OTHER))
    before = on_disk(root)
    paths = [revision(repo), revision(repo, OTHER)]

    done = deleted(*paths)

    assert done.gone == [str(path) for path in paths]
    assert not repo.path.exists()
    assert done.report.freed == before - on_disk(root)


def test_all_revisions_leave_a_download_that_was_not_to_go(root):
    repo = model(root)
    left = repo.incomplete("more", size=5000)

    deleted(revision(repo))

    assert left.exists()
    assert [blob.name for blob in (repo.path / "blobs").iterdir()] == [left.name]


def test_two_repositories_with_the_same_commit_are_two(root):
    one, other = model(root, "owner/one"), model(root, "owner/other")

    deleted(revision(one))

    assert not one.path.exists()
    (left,) = healthy(root).repos
    assert left.repo_path == other.path
    assert len(list((other.path / "blobs").iterdir())) == 3


def test_a_dataset_is_told_from_the_model_of_the_same_name(root):
    one, other = model(root), model(root, kind="datasets")

    deleted(one.path)

    assert [found.repo_path for found in healthy(root).repos] == [other.path]


def test_a_shared_blob_goes_with_the_last_repository_that_refers_to_it(root):
    repos = []
    for name in ("owner/one", "owner/other"):
        repo = MadeRepository(root, name)
        blob = repo.shared("same", size=70_000, content=b"s" * 70_000, xet=digest("same"))
        repo.revision(COMMIT, {"model.safetensors": blob}, refs=["main"])
        repos.append(repo)
    before = on_disk(root)

    first = deleted(repos[0].path)
    between = on_disk(root)
    last = deleted(repos[1].path)

    assert first.report.freed == before - between < 70_000
    assert last.report.freed >= 70_000
    # What the store keeps of an entry that is gone is its empty lock.
    assert last.report.freed == between - on_disk(root)


def test_a_shared_blob_that_nothing_refers_to_is_collected(root):
    repo = MadeRepository(root, "owner/one")
    blob = repo.shared("same", size=70_000, content=b"s" * 70_000)
    payload = (repo.path / "blobs" / blob).resolve()
    (repo.path / "blobs" / blob).unlink()
    assert payload.exists()
    (item,) = [item for item in collect(kinds=HUB).items.values() if item.kind is Kind.INCOMPLETE]

    done = deleted(item.path)

    assert not payload.exists()
    assert done.report.freed >= 70_000


def test_a_download_in_progress_keeps_what_it_writes(root):
    repo = model(root)
    part = repo.incomplete("more", size=5000)
    plan, whole = planned(part), planned(repo.path)
    with lock_of(root, repo, part.name.partition(".")[0]):
        assert carried_out(plan).why == {str(part): "in use: it is being downloaded"}
        assert carried_out(whole).why == {str(repo.path): "in use: it is being downloaded"}
    assert part.exists()
    assert healthy(root).repos

    assert carried_out(plan).gone == [str(part)]
    assert not part.exists()


def test_what_a_download_has_open_stays_without_any_lock(root):
    repo = model(root)
    part = repo.incomplete("more", size=5000)
    plan = planned(part)
    with open_in_a_process(part) as pid:
        assert f"process {pid}" in carried_out(plan).why[str(part)]
    assert part.exists()


def test_a_blob_that_nothing_refers_to_goes_and_one_that_is_referred_to_by_now_stays(root):
    repo = model(root)
    lost = repo.path / "blobs" / repo.blob("lost", size=5000, content=b"x" * 5000)
    found = repo.path / "blobs" / repo.blob("found", size=5000, content=b"x" * 5000)
    plan = planned(lost, found)
    (revision(repo) / "found.bin").symlink_to(f"../../blobs/{found.name}")

    done = carried_out(plan)

    assert done.gone == [str(lost)]
    assert found.exists()
    assert healthy(root).repos


@pytest.mark.parametrize("news", ["revision", "blob"])
def test_a_repository_with_something_new_in_it_stays(root, news):
    repo = model(root)
    plan = planned(repo.path)
    if news == "revision":
        repo.revision(OTHER, {}, refs=["next"])
    else:
        repo.blob("new", size=10)

    assert carried_out(plan).why == {str(repo.path): "it has changed since it was looked at"}
    assert revision(repo).is_dir()


def test_a_branch_that_has_moved_on_stays(root):
    repo = model(root, commits=(COMMIT, OTHER))
    plan = planned(revision(repo))
    repo.ref("main", OTHER)

    carried_out(plan)

    assert (repo.path / "refs" / "main").read_text() == OTHER
    assert healthy(root).repos


@pytest.mark.parametrize("whole", [True, False])
def test_a_download_that_begins_meanwhile_keeps_its_blobs(root, whole):
    repo = model(root)
    plan = planned(repo.path if whole else revision(repo))
    begun = []

    def cancelled():
        if not revision(repo).exists() and not begun:
            # What huggingface_hub does first: the snapshot's folder, a link to a blob that is there.
            begun.append(repo.revision(OTHER, {}, refs=["next"]))
        return False

    done = carried_out(plan, cancelled=cancelled)

    assert begun
    assert list(done.why.values()) == ["a download of it has begun"]
    assert begun[0].is_dir()
    assert len(list((repo.path / "blobs").iterdir())) == 3


def test_a_damaged_repository_goes_whole(root):
    repo = model(root)
    next((repo.path / "blobs").iterdir()).unlink()
    assert scan_cache_dir(root).warnings

    deleted(repo.path)

    assert not repo.path.exists()
    assert healthy(root).repos == frozenset()


def test_a_link_out_of_a_repository_is_unlinked_and_never_followed(root, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years")
    repo = model(root)
    (revision(repo) / "thesis").symlink_to(precious / "thesis")
    (revision(repo) / "folder").symlink_to(precious)
    assert planned(revision(repo)).stays

    deleted(repo.path)

    assert not repo.path.exists()
    assert (precious / "thesis").read_text() == "years"


@pytest.mark.parametrize("name", ["blobs", "snapshots", "."])
def test_a_repository_that_lies_elsewhere_loses_the_link_alone(root, tmp_path, name):
    repo = model(root)
    place = repo.path / name if name != "." else repo.path
    moved = place.rename(tmp_path / "moved")
    place.symlink_to(moved)
    there = sorted(path.name for path in moved.rglob("*"))

    deleted(repo.path)

    assert not os.path.lexists(repo.path)
    assert sorted(path.name for path in moved.rglob("*")) == there


def test_a_model_that_a_server_was_started_with_by_its_name_stays(root):
    repo = model(root, commits=(COMMIT, OTHER))
    plan, part = planned(repo.path), planned(revision(repo))
    code = "print('up', flush=True); import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "serve", f"--model={NAME}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout.readline() == b"up\n"
        for done in (carried_out(plan), carried_out(part)):
            (why,) = done.why.values()
            assert f"process {server.pid}) was started with it" in why
        server.stdin.close()
    assert revision(repo).is_dir()


def test_one_revision_in_use_keeps_none_of_the_others(root):
    repo = model(root, commits=(COMMIT, OTHER))
    plan = planned(revision(repo), revision(repo, OTHER))
    with open_in_a_process(revision(repo) / "sub" / "own.bin"):
        done = carried_out(plan)
    assert done.gone == [str(revision(repo, OTHER))]
    assert list(done.why) == [str(revision(repo))]
    assert (revision(repo) / "model.safetensors").exists()
    assert healthy(root).repos


def test_stopping_half_way_is_told_and_a_later_deletion_finishes(root):
    repo = MadeRepository(root, "owner/many")
    files = {f"{n}.bin": repo.blob(n, size=5000, content=b"x" * 5000) for n in range(60)}
    repo.revision(COMMIT, files, refs=["main"])
    asked = iter(range(1000))

    done = deleted(repo.path, cancelled=lambda: next(asked) > 4)

    assert done.why[str(repo.path)].startswith("stopped")
    assert done.report.cancelled
    assert done.report.freed > 0
    assert not revision(repo).exists()
    assert deleted(repo.path).gone == [str(repo.path)]


def whole_looking(root):
    """Snapshots that have a configuration, and what in them leads nowhere."""
    return {
        config.parent: [path for path in config.parent.rglob("*") if not path.exists()]
        for config in root.glob("models--*/snapshots/*/config.json")
    }


@pytest.mark.parametrize("whole", [True, False])
def test_killed_at_any_change_no_snapshot_looks_whole_and_is_not(root, whole):
    for at in range(1, 100):
        repo = model(root, commits=(COMMIT,) if whole else (COMMIT, OTHER))
        plan = planned(repo.path if whole else revision(repo), kinds=HUB)
        if not _killed(plan, at):
            break
        assert all(missing == [] for missing in whole_looking(root).values())
        if repo.path.exists():
            assert carried_out(planned(repo.path, kinds=HUB)).gone == [str(repo.path)]
    assert at > 5
    assert whole == (not repo.path.exists())


def _killed(plan, at):
    """Carry a plan out in a process that dies before its change ``at`` of the file system; False when it lived."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def watch(event, _):
            nonlocal count
            if event in {"os.remove", "os.rmdir", "os.rename", "os.mkdir"}:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            carried_out(plan)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)
