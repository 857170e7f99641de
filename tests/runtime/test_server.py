"""Ports and hosts are tried before vLLM is started; the log of a child is followed line by line."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import wait_for

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.log_tail import LogTail, last_lines
from quantui.runtime.sampler import MemorySampler, tree_bytes
from quantui.runtime.server import check_port, free_port


def refused(host, port=0):
    with pytest.raises(QuantuiError) as raised:
        check_port(host, port)
    return raised.value


def test_a_free_port_can_be_bound():
    port = free_port("127.0.0.1")
    check_port("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_in_use_is_refused_with_the_way_to_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = refused("127.0.0.1", taken.getsockname()[1])
    assert (error.code, error.exit_code) == ("serve.port-in-use", ExitCode.DOES_NOT_FIT)
    assert "serve.port=0" in error.fix


def test_a_port_of_every_address_is_in_use_when_one_has_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert refused("0.0.0.0", taken.getsockname()[1]).code == "serve.port-in-use"


@pytest.mark.parametrize(
    "host", ["no such host", "256.0.0.1", "x" * 300, "a..b", "203.0.113.1", "::bad::"]
)
def test_a_host_that_is_no_address_of_this_machine_is_bad_input(host):
    error = refused(host)
    assert (error.code, error.exit_code) == ("serve.bad-host", ExitCode.BAD_INPUT)
    assert error.fix


def test_a_free_port_of_a_bad_host_is_the_same_error():
    with pytest.raises(QuantuiError) as raised:
        free_port("256.0.0.1")
    assert raised.value.code == "serve.bad-host"


def test_a_log_that_is_not_there_yet_has_no_lines(tmp_path):
    tail = LogTail(tmp_path / "log")
    assert tail.lines() == []
    (tmp_path / "log").write_text("first\n")
    assert tail.lines() == ["first"]


def test_only_new_and_complete_lines_are_given(tmp_path):
    path = tmp_path / "log"
    tail = LogTail(path)
    path.write_bytes(b"one\ntw")
    assert tail.lines() == ["one"]
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []


def test_a_progress_bar_is_a_line_for_each_of_its_states(tmp_path):
    (tmp_path / "log").write_bytes(b"  0%|\r 50%|\r100%|\r\nnext\r\n\n")
    assert LogTail(tmp_path / "log").lines() == ["  0%|", " 50%|", "100%|", "next"]


def test_a_character_written_in_two_parts_is_whole(tmp_path):
    path = tmp_path / "log"
    tail = LogTail(path)
    path.write_bytes("ä".encode()[:1])
    assert tail.lines() == []
    path.write_bytes("ä\n".encode())
    assert tail.lines() == ["ä"]


def test_bytes_that_are_no_text_are_replaced(tmp_path):
    (tmp_path / "log").write_bytes(b"a\xffb\n")
    assert LogTail(tmp_path / "log").lines() == ["a\ufffdb"]


def test_the_rest_comes_at_the_end(tmp_path):
    (tmp_path / "log").write_bytes(b"one\nrest")
    tail = LogTail(tmp_path / "log")
    assert tail.lines(final=True) == ["one", "rest"]
    assert tail.lines(final=True) == []


def test_the_last_lines_of_a_large_log_are_read_from_its_end(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n\n" for number in range(50_000)))
    assert last_lines(path, 2) == ["line 49998", "line 49999"]


def test_a_log_that_cannot_be_read_has_no_last_lines(tmp_path):
    assert last_lines(tmp_path / "none", 3) == []


def test_memory_is_that_of_the_processes_that_are_there():
    own = tree_bytes([os.getpid()])
    assert own > 0
    assert tree_bytes([2**22 + 1]) is None
    assert tree_bytes([]) is None


def test_a_sampler_gives_each_sample_once_and_stops():
    sampler = MemorySampler(lambda: [os.getpid()], interval_s=0.01)
    sampler.start()
    samples = wait_for(sampler.drain)
    assert samples[0].tree_bytes > 0
    assert samples[0].ram_available_bytes > 0
    sampler.close()
    sampler.drain()
    assert sampler.drain() == []


def test_a_sampler_that_was_never_started_can_be_closed():
    MemorySampler(list).close()
