"""Bytes reported as freed are those that the disk has more: random caches on a file system that nobody else uses."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.cache_deletions import carried_out, planned
from fixtures.cache_things import own_places
from fixtures.made_caches import MadeRepository, digest

from quantui.domain.caches.deletion import plan_deletion
from quantui.domain.caches.items import Kind
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.caches.inventory import collect

SEED = os.environ.get("QUANTUI_CHAOS_SEED", "1")
BLOCK = 4096


class Disk:
    """A file system: how much of it is free, from itself or, where none may be mounted, by adding up inodes."""

    def __init__(self, path, kind):
        self.path = Path(path)
        self.kind = kind

    def free(self):
        """Bytes; only differences say anything."""
        if self.kind != "inodes":
            subprocess.run(["sync", "-f", self.path], check=True)
            found = os.statvfs(self.path)
            return found.f_bfree * found.f_frsize
        inodes = {}
        for folder, _, names in os.walk(self.path):
            for path in (folder, *(f"{folder}/{name}" for name in names)):
                status = os.lstat(path)
                inodes[status.st_ino] = status.st_blocks * 512
        return -sum(inodes.values())


@pytest.fixture(params=["tmpfs", "ext4", "inodes"])
def disk(request, tmp_path):
    """A file system whose free space tells what a file takes: btrfs moves its own trees about."""
    with quiet(request.param, tmp_path) as made:
        yield made


@contextmanager
def quiet(kind, tmp_path):
    """A file system that nobody else uses, as long as this lasts."""
    place = tmp_path / "disk"
    place.mkdir()
    if kind == "inodes":
        yield Disk(place, kind)
        return
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(place)]
    else:
        image, make = tmp_path / "image", f"mkfs.{kind}"
        with image.open("wb") as file:
            file.truncate(160 << 20)
        if shutil.which(make) is None:
            pytest.skip(f"there is no {make}")
        force = "-F" if kind == "ext4" else "-f"
        subprocess.run([make, "-q", force, image], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield Disk(place, kind)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def a_world(root, drawn):
    """Repositories that share payloads, revisions that share blobs, artifacts with hard links to both."""
    files = []
    for number in range(drawn.randint(2, 4)):
        repo = MadeRepository(root, f"owner/model-{number}")
        blobs = []
        for blob in range(drawn.randint(2, 5)):
            size = drawn.randint(1, 60_000)
            if drawn.random() < 0.4:
                which = drawn.randint(0, 3)
                size = 20_000 + which
                name = repo.shared(
                    which, size=size, content=bytes([which]) * size, xet=digest("xet", which)
                )
            else:
                name = repo.blob("own", blob, size=size, content=drawn.randbytes(size))
                files.append(repo.path / "blobs" / name)
            blobs.append(name)
        if drawn.random() < 0.5:
            repo.incomplete("part", size=9000).write_bytes(b"x" * drawn.randint(1, 9000))
        for commit in drawn.sample("abcd", drawn.randint(1, 3)):
            picked = drawn.sample(blobs, drawn.randint(1, len(blobs)))
            repo.revision(
                commit * 40,
                {f"{n}/f{blob[:6]}": blob for n, blob in enumerate(picked)},
                refs=["main"] if drawn.random() < 0.3 else [],
            )
    store = ArtifactStore().root
    for number in range(drawn.randint(1, 4)):
        folder = store / f"base--merged--{number:016x}"
        (folder / "sub").mkdir(parents=True)
        for file in range(drawn.randint(1, 5)):
            path = folder / drawn.choice(["", "sub"]) / f"shard-{file}"
            if files and drawn.random() < 0.5:
                os.link(drawn.choice(files), path)
            else:
                path.write_bytes(drawn.randbytes(drawn.randint(0, 50_000)))
                files.append(path)
            if drawn.random() < 0.2:
                with path.open("ab") as sparse:
                    sparse.truncate(sparse.tell() + 5_000_000)


@pytest.mark.parametrize("round_", range(2))
def test_the_disk_has_more_room_by_what_the_report_says(disk, monkeypatch, round_):
    drawn = random.Random(f"{SEED}-{round_}")
    print("seed", SEED, round_)
    root = own_places(monkeypatch, disk.path)
    monkeypatch.setenv("QUANTUI_HOME", str(disk.path / "home"))
    a_world(root, drawn)
    while things := collect(kinds=[*Kind]).items:
        chosen = drawn.sample(sorted(things), drawn.randint(1, min(6, len(things))))
        plan = plan_deletion([things[path] for path in chosen], things)
        before = disk.free()

        done = carried_out(plan)

        assert done.why == {}
        freed = disk.free() - before
        files = sum(one.files for one in done.report.deleted)
        assert abs(done.report.freed - freed) <= BLOCK * (files + len(done.gone)), chosen
        # The last part of a repository takes the repository's own folders along.
        assert abs(done.report.freed - plan.frees) <= BLOCK * (files + 8 * len(done.gone)), chosen


def test_what_reflinked_copies_share_is_freed_with_the_last_of_them(tmp_path, monkeypatch):
    with quiet("btrfs", tmp_path) as disk:
        own_places(monkeypatch, disk.path)
        monkeypatch.setenv("QUANTUI_HOME", str(disk.path / "home"))
        size = 8 << 20
        one, other = (ArtifactStore().root / name for name in ("one", "other"))
        for folder in (one, other):
            folder.mkdir(parents=True)
        (one / "weights").write_bytes(os.urandom(size))
        subprocess.run(["cp", "--reflink=always", one / "weights", other / "weights"], check=True)
        before = disk.free()

        first = carried_out(planned(one))
        between = disk.free()
        plan = planned(other)
        last = carried_out(plan)

        assert first.report.freed < 1 << 20
        assert last.report.freed >= size
        assert plan.frees >= size
        assert between - before < 2 << 20
        assert disk.free() - before > size - (2 << 20)


def test_a_disk_without_a_byte_left_gets_room_again(tmp_path, monkeypatch):
    with quiet("tmpfs", tmp_path) as disk:
        own_places(monkeypatch, disk.path)
        monkeypatch.setenv("QUANTUI_HOME", str(disk.path / "home"))
        folder = ArtifactStore().root / "base--merged--0123456789abcdef"
        folder.mkdir(parents=True)
        (folder / "quantui.json").write_text("{}")
        (folder / "weights").write_bytes(os.urandom(1 << 20))
        plan, away = planned(folder), planned(folder, to_trash=True)
        with (disk.path / "full").open("wb", 0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))

        assert "No space left" in carried_out(away).why[str(folder)]
        assert (folder / "quantui.json").is_file()
        done = carried_out(plan)

        assert done.gone == [str(folder)]
        assert done.report.freed >= 1 << 20
        assert not folder.exists()
        assert not (folder.parent / ".quantui-trash").exists()
