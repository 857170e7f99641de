"""Who uses what lies on disk, as /proc and quantui's own runs tell it, with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from fixtures.cache_things import open_in_a_process

from quantui.domain.caches.items import ProcessUse
from quantui.domain.events import RunStarted, to_dict
from quantui.runtime.caches import processes
from quantui.runtime.caches.namespaces import Translation, read_mounts
from quantui.runtime.caches.processes import process_uses
from quantui.runtime.paths import runs_dir
from quantui.runtime.recorder import OWNER, owner_mark
from quantui.runtime.run_record import EVENTS

WAITS = "print('up', flush=True); import sys; sys.stdin.read()"

NAME = f"owner/name-{os.getpid()}x"
"""No process of another test was started with it."""

MAPS = f"""
import ctypes, os, sys
map = ctypes.CDLL(None).mmap
map.restype, map.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
file = os.open(sys.argv[1], os.O_RDONLY)
assert map(None, 4096, 1, 2, file, 0) != ctypes.c_void_p(-1).value
os.close(file)
{WAITS}
"""
"""Python's own mmap keeps the file open."""


@contextmanager
def running(*arguments, code=WAITS, **options):
    """While this lasts a process runs with these arguments; gives its number."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **options,
    ) as child:
        assert child.stdout.readline() == b"up\n"
        try:
            yield child.pid
        finally:
            child.stdin.close()
            child.wait()


@pytest.fixture
def thing(tmp_path):
    folder = tmp_path / "models" / "thing"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 8192)
    return folder


def uses(thing, names=()):
    return {one.pid: one.how for one in process_uses().of(str(thing), names)}


def test_nobody_uses_what_nobody_uses(thing):
    assert uses(thing) == {}


def test_an_open_file_tells(thing):
    with open_in_a_process(thing / "model.safetensors") as pid:
        (use,) = process_uses().of(str(thing))
        assert (use.pid, use.how) == (pid, "has files of it open")
        assert isinstance(use, ProcessUse)
        assert use.name


def test_a_file_that_is_in_memory_tells_though_it_was_closed(thing):
    strange = "odd\nname \\ (deleted)"
    (thing / strange).write_bytes(b"x" * 4096)
    for file in ("model.safetensors", strange):
        with running(str(thing / file), code=MAPS) as pid:
            (found,) = [one for one in process_uses().of(str(thing)) if one.pid == pid]
            assert found.how == "has files of it in memory"


def test_a_working_folder_below_it_tells(thing):
    with running(cwd=thing) as pid:
        assert uses(thing) == {pid: "works in it"}
        assert uses(thing.parent) == {pid: "works in it"}


@pytest.mark.parametrize(
    "argument",
    [
        "{}",
        "--model={}",
        "--model={}/",
        "lora={}",
        "--lora-modules=one={}/sub",
        '{{"model": "{}"}}',
        "{}/../thing/model.safetensors",
    ],
)
def test_a_command_line_that_names_it_tells(thing, argument):
    with running("serve", argument.format(thing)) as pid:
        assert uses(thing) == {pid: "was started with it"}
        assert uses(thing.with_name("thin")) == {}
        assert uses(thing.with_name("thing-2")) == {}


def test_a_command_line_that_names_a_link_to_it_tells(thing, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(thing)
    with running(str(link)) as pid:
        assert uses(thing) == {pid: "was started with it"}


def test_a_relative_path_is_seen_from_where_the_process_works(thing):
    with running("thing", cwd=thing.parent) as pid:
        assert uses(thing) == {pid: "was started with it"}


@pytest.mark.parametrize("argument", ["{}", "--model={}", "--models=x,{}"])
def test_a_command_line_that_calls_it_otherwise_tells(thing, argument):
    with running(argument.format(NAME)) as pid:
        assert uses(thing, (NAME,)) == {pid: "was started with it"}
        assert uses(thing, (NAME[:-1],)) == {}
        assert uses(thing) == {}


def test_links_to_the_thing_are_seen_through(thing, tmp_path):
    link = tmp_path / "other-root"
    link.symlink_to(thing.parent)
    with open_in_a_process(thing / "model.safetensors") as pid:
        assert list(uses(link / "thing")) == [pid]


def test_a_folder_that_is_only_being_listed_is_not_in_use(thing):
    code = f"import os, sys; d = os.open(sys.argv.pop(), os.O_RDONLY); {WAITS}"
    link = str(thing.parent)
    with running("x", link, code=code):
        assert uses(thing) == {}


def test_what_deletes_it_does_not_use_it(thing, tmp_path):
    named = tmp_path / "bin" / "quantui"
    named.parent.mkdir()
    named.write_text(WAITS)
    command = [sys.executable, str(named), "cache", "rm", str(thing)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"up\n"
        assert uses(thing) == {}
        child.stdin.close()


def test_this_process_uses_what_it_has_in_memory(thing):
    import mmap

    with (thing / "model.safetensors").open("rb") as file:
        assert uses(thing) == {}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
            assert uses(thing) == {os.getpid(): "has files of it in memory"}


def test_a_process_that_uses_it_in_several_ways_is_named_once(thing):
    code = f"import sys; f = open(sys.argv[1], 'rb'); {WAITS}"
    with running(str(thing / "model.safetensors"), code=code, cwd=thing) as pid:
        assert uses(thing) == {pid: "has files of it open"}


def test_what_a_process_hides_is_passed_over(thing, monkeypatch):
    real = processes._read
    monkeypatch.setattr(
        processes, "_read", lambda path: b"" if path.endswith("/maps") else real(path)
    )
    monkeypatch.setattr(processes, "_link", lambda _: "")
    with running(str(thing)) as pid:
        assert uses(thing) == {pid: "was started with it"}


def test_a_living_run_uses_what_its_record_names(thing):
    with subprocess.Popen(["sleep", "600"]) as host:
        try:
            directory = runs_dir() / "run-1"
            directory.mkdir(parents=True)
            (directory / OWNER).write_text(owner_mark(host.pid))
            plan = {"model": NAME, "adapters": [str(thing)]}
            steps = (("serve", "Serve it"),)
            events = [
                RunStarted(
                    at=1.0,
                    run_id="run-1",
                    steps=steps,
                    directory=str(directory),
                    quantui_version="1",
                    plan=plan,
                ),
            ]
            lines = [json.dumps(to_dict(event)) for event in events]
            (directory / EVENTS).write_text("\n".join(lines) + "\n")

            (model,) = process_uses().of("/nowhere", (NAME,))
            (adapter,) = process_uses().of(str(thing))
            (record,) = process_uses().of(str(directory))
        finally:
            host.kill()
    assert (model.pid, model.run_id, model.how) == (host.pid, "run-1", "is a run of it")
    assert (adapter.pid, adapter.run_id) == (host.pid, "run-1")
    assert record.how == "is this run"


def test_paths_of_a_container_are_read_as_they_are_here():
    table = (
        b"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 8:2 / /data\\040disk rw - ext4 /dev/sdb1 rw\n"
    )
    there = (
        b"90 1 0:50 / / rw - overlay overlay rw\n"
        b"91 90 8:1 /home/me/.cache /root/.cache rw - ext4 /dev/sda1 rw\n"
        b"92 90 8:2 /models /models rw - ext4 /dev/sdb1 rw\n"
    )
    read = Translation(read_mounts(there), read_mounts(table))

    assert read.here("/root/.cache/hub/x") == ("/home/me/.cache/hub/x",)
    assert read.here("/root/.cache") == ("/home/me/.cache",)
    assert read.here("/models/llama") == ("/data disk/models/llama",)
    assert read.here("/etc/passwd") == ()
    assert read.here("/models-2/llama") == ()


def test_a_server_in_a_container_tells_by_what_is_mounted_into_it(thing, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" serve --model="$2/thing"'
    arguments = [str(thing.parent), str(inside), sys.executable, WAITS]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *arguments]
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no namespaces for this user")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        if server.stdout.readline() != b"up\n":
            pytest.skip("nothing may be mounted here")
        assert uses(thing) == {server.pid: "was started with it"}
        server.stdin.close()
