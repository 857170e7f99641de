"""The sockets of a run's processes lie in a folder that goes with them, however they and quantui end."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import carrying, wait_for

from quantui.runtime.process import KeptProcess, reap_abandoned
from quantui.runtime.socket_folder import VARIABLE, make_socket_folder

# As vLLM's engine: a socket named by a UUID, which nothing unlinks when the process is killed.
BINDS = """
import os, signal, socket, time, uuid
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
at = socket.socket(socket.AF_UNIX)
at.bind(f"{os.environ['VLLM_RPC_BASE_PATH']}/{uuid.uuid4()}")
print(os.environ["VLLM_RPC_BASE_PATH"], flush=True)
time.sleep(600)
"""


@pytest.fixture
def run_id():
    name = f"test-{secrets.token_hex(6)}"
    yield name
    for pid in carrying(name.encode()):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(run_id, tmp_path):
    started = []

    def begin():
        process = KeptProcess(
            [sys.executable, "-c", BINDS], run_id=run_id, name="serve", log=tmp_path / "log"
        )
        started.append(process)
        return process, folder_in(tmp_path / "log")

    yield begin
    for process in started:
        process.close(timeout=0.1)


def folder_in(log):
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    return Path(log.read_text().strip())


def test_a_socket_of_the_longest_name_has_a_path_that_the_kernel_takes(start):
    _, folder = start()
    (socket,) = folder.iterdir()
    assert socket.is_socket()


def test_only_this_user_may_enter_the_folder(start):
    _, folder = start()
    assert folder.stat().st_mode & 0o077 == 0


def test_a_killed_process_leaves_no_socket(start):
    process, folder = start()
    os.kill(process.status().pid, signal.SIGKILL)
    process.wait_gone(20)
    assert not folder.exists()


def test_a_stop_that_has_to_kill_leaves_no_socket(start):
    process, folder = start()
    process.close(timeout=0.1)
    assert not folder.exists()


def test_a_killed_keeper_leaves_no_socket(start):
    process, folder = start()
    os.kill(process.keeper_pid, signal.SIGKILL)
    process.wait_gone(20)
    assert not folder.exists()


def test_quantui_killed_leaves_no_socket(run_id, tmp_path):
    program = f"""
        import pathlib, sys, time
        from quantui.runtime.process import KeptProcess
        log = pathlib.Path({str(tmp_path / "log")!r})
        KeptProcess([sys.executable, "-c", {BINDS!r}], run_id={run_id!r}, name="serve", log=log)
        time.sleep(600)
    """
    quantui = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    folder = folder_in(tmp_path / "log")
    quantui.kill()
    quantui.wait()
    wait_for(lambda: not folder.exists())


def test_what_a_run_left_whose_quantui_and_keepers_were_killed_goes_with_the_next_start(run_id):
    folder = Path(make_socket_folder(run_id))
    other = Path(make_socket_folder(f"{run_id}-2"))
    (folder / "left").touch()
    reap_abandoned(run_id)
    assert not folder.exists()
    assert other.exists(), "another run's, whose name only begins like it"
    other.rmdir()


def test_a_link_in_the_place_of_such_a_folder_is_not_followed(run_id, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    link = Path(tempfile.gettempdir()) / f"quantui-{run_id}-abcdefgh"
    link.symlink_to(tmp_path / "mine")
    try:
        reap_abandoned(run_id)
        assert (tmp_path / "mine" / "file").exists()
    finally:
        link.unlink()


def test_where_the_folder_of_temporary_files_has_a_long_name_a_shorter_place_is_taken(
    run_id, tmp_path, monkeypatch
):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = make_socket_folder(run_id)
    assert folder is not None
    assert not folder.startswith(str(long))
    assert list(long.iterdir()) == []
    Path(folder).rmdir()


def test_a_place_that_the_user_named_is_left_to_the_user(start, tmp_path, monkeypatch):
    named = Path(tempfile.mkdtemp(prefix="q-"))
    monkeypatch.setenv(VARIABLE, str(named))
    process, folder = start()
    assert folder == named
    process.close(timeout=0.1)
    (left,) = named.iterdir()
    left.unlink()
    named.rmdir()
