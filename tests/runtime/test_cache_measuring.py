"""A tree is measured as du measures it; links, mounts, copies that share extents and strangers do no harm."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.made_caches import RandomCache, sparse
from fixtures.small_disks import small_disk

from quantui.domain.caches.deletion import freed_by
from quantui.domain.caches.items import CacheItem, Kind
from quantui.runtime.caches.measuring import measure_tree
from quantui.runtime.caches.mounts import read_mounts

SEED = int(os.environ.get("QUANTUI_CHAOS_SEED", time.time_ns() % 1_000_000))
MIB = 1 << 20

_MEASURE = """
import json, sys
from quantui.runtime.caches.measuring import measure_tree
tree = measure_tree(sys.argv[1])
print(json.dumps({
    "frees": tree.use.frees, "on_disk": tree.use.on_disk, "apparent": tree.use.apparent,
    "files": tree.files, "problems": [[one.path, one.what] for one in tree.problems],
}))
"""


def du(path):
    told = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True)
    return int(told.stdout.split()[0])


def measured_within(disk, path):
    """What :func:`measure_tree` gives to a process that sees the disk."""
    command = [*disk.within, sys.executable, "-c", _MEASURE, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return json.loads(told.stdout)


def item(path):
    return CacheItem(Kind.FOLDER, path.name, str(path), "", measure_tree(str(path)).use)


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_a_tree_takes_what_du_says(tmp_path, seed):
    RandomCache(tmp_path / "tree", random.Random(seed)).make()

    tree = measure_tree(str(tmp_path))

    assert tree.use.on_disk == tree.use.frees == du(tmp_path)
    assert tree.files == sum(len(files) for _, _, files in os.walk(tmp_path)) + sum(
        Path(above, name).is_symlink() for above, names, _ in os.walk(tmp_path) for name in names
    )
    assert not tree.problems


def test_links_are_not_followed(tmp_path):
    (tmp_path / "tree").mkdir()
    sparse(tmp_path / "large", 5 * MIB, b"x" * 5 * MIB)
    (tmp_path / "tree" / "to-file").symlink_to("../large")
    (tmp_path / "tree" / "to-itself").symlink_to(".")
    (tmp_path / "tree" / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("tree")

    assert measure_tree(str(tmp_path / "tree")).use.apparent == 0
    assert measure_tree(str(tmp_path / "link")).use.on_disk < 5000
    assert measure_tree(str(tmp_path / "link")).files == 1


def test_a_link_on_the_way_to_the_tree_is(tmp_path):
    (tmp_path / "real" / "tree").mkdir(parents=True)
    sparse(tmp_path / "real" / "tree" / "file", 777)
    (tmp_path / "link").symlink_to("real")

    assert measure_tree(str(tmp_path / "link" / "tree")).use.apparent == 777


def test_a_file_with_a_name_in_two_trees_is_freed_with_both(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    sparse(tmp_path / "one" / "weights", MIB, b"w" * MIB)
    os.link(tmp_path / "one" / "weights", tmp_path / "two" / "weights")
    one, two = item(tmp_path / "one"), item(tmp_path / "two")

    assert one.use.shared == two.use.shared == MIB
    assert freed_by([one, two]) == du(tmp_path) - tmp_path.stat().st_blocks * 512


def test_names_of_one_file_within_a_tree_count_once(tmp_path):
    sparse(tmp_path / "weights", MIB, b"w" * MIB)
    os.link(tmp_path / "weights", tmp_path / "again")
    tree = measure_tree(str(tmp_path))

    assert (tree.use.apparent, tree.use.claims) == (MIB, ())
    assert tree.use.frees == du(tmp_path)


def test_a_file_is_a_tree_of_its_own(tmp_path):
    sparse(tmp_path / "model.gguf", MIB, b"w" * MIB)
    tree = measure_tree(str(tmp_path / "model.gguf"))

    assert (tree.use.apparent, tree.use.frees, tree.files) == (MIB, MIB, 1)


def test_pipes_and_sockets_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        tree = measure_tree(str(tmp_path))

    assert (tree.files, tree.use.apparent, tree.problems) == (2, 0, ())


def test_reading_a_small_record_is_no_use_of_a_tree(tmp_path):
    for name, read in (("quantui.json", 9000), ("weights.safetensors", 5000)):
        sparse(tmp_path / name, 10)
        os.utime(tmp_path / name, (read, 1000))
    os.utime(tmp_path, (1000, 1000))
    tree = measure_tree(str(tmp_path))

    assert tree.used_at == 5000


def test_a_tree_that_is_not_there_is_a_problem(tmp_path):
    tree = measure_tree(str(tmp_path / "none"))

    assert tree.use.on_disk == 0
    assert [one.what for one in tree.problems] == ["It is not there any more."]


def test_what_vanishes_meanwhile_is_left_out(tmp_path):
    for name in ("stays", "goes"):
        (tmp_path / name / "deeper").mkdir(parents=True)
        sparse(tmp_path / name / "deeper" / "file", 10)
    rounds = []

    def between_folders():
        rounds.append(None)
        if len(rounds) == 2:
            shutil.rmtree(tmp_path / "goes")
        return False

    tree = measure_tree(str(tmp_path), stop=between_folders)

    assert tree.use.apparent == 10
    assert not tree.problems


def test_measuring_ends_when_it_is_stopped(tmp_path):
    (tmp_path / "deeper").mkdir()
    sparse(tmp_path / "deeper" / "file", 10)

    assert measure_tree(str(tmp_path), stop=lambda: True).use.apparent == 0


def test_folders_below_the_longest_path_are_a_problem(tmp_path):
    """Even root cannot read them by their names."""
    below = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=below)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    try:
        tree = measure_tree(str(tmp_path))
    finally:
        subprocess.run(["rm", "-rf", tmp_path], check=True)

    assert len(tree.problems) == 1
    assert "File name too long" in tree.problems[0].what


def test_a_stamp_is_another_once_something_was_written_and_the_same_after_reading(tmp_path):
    sparse(tmp_path / "file", 10, b"x" * 10)
    before = measure_tree(str(tmp_path)).stamp
    (tmp_path / "file").read_bytes()
    assert measure_tree(str(tmp_path)).stamp == before

    sparse(tmp_path / "new", 0)
    assert measure_tree(str(tmp_path)).stamp != before


def test_what_is_mounted_below_is_not_counted(tmp_path):
    with small_disk("tmpfs", 8 * MIB, tmp_path / "tree") as disk:
        (disk.seen / "file").write_bytes(b"x" * MIB)
        sparse(tmp_path / "tree" / "beside", 333)
        told = measured_within(disk, tmp_path / "tree")

    assert told["apparent"] == 333
    assert [path for path, _ in told["problems"]] == [str(disk.at)]


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_what_reflinked_copies_share_is_not_freed(tmp_path, kind):
    size = 320 * MIB if kind == "xfs" else 128 * MIB
    with small_disk(kind, size, tmp_path / "disk") as disk:
        model, copy = disk.seen / "model", disk.seen / "copy"
        model.mkdir()
        (model / "weights").write_bytes(os.urandom(4 * MIB))
        (model / "own").write_bytes(os.urandom(2 * MIB))
        subprocess.run(["cp", "--reflink=always", model / "weights", copy], check=True)
        subprocess.run(["sync", "-f", disk.seen], check=True)
        shared = measured_within(disk, disk.at / "model")
        copy.unlink()
        subprocess.run(["sync", "-f", disk.seen], check=True)
        alone = measured_within(disk, disk.at / "model")

    assert shared["on_disk"] == alone["on_disk"] == alone["frees"]
    assert shared["on_disk"] - shared["frees"] == 4 * MIB


def test_mount_points_with_blanks_and_nested_ones_are_found():
    table = read_mounts(
        b"22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        b"23 22 0:40 / /data/my\\040models rw,relatime shared:1 - btrfs /dev/sdb rw\n"
        b"24 22 0:41 / /data/\\377 rw - xfs /dev/sdc rw\n"
        b"a line of another form\n"
    )

    assert table.kind_at("/data/my models/owner/file") == "btrfs"
    assert table.kind_at(os.fsdecode(b"/data/\xff")) == "xfs"
    assert table.kind_at("/data") == "ext4"
    assert read_mounts(b"").kind_at("/data") == ""
