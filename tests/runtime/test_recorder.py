"""A run's record, and what happens to runs whose quantui died: their processes go, those of live runs stay."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import carrying, wait_for

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import LogLine, Notice
from quantui.runtime.paths import runs_dir
from quantui.runtime.recorder import Recorder, RunFolder, clear_abandoned, release


@pytest.fixture
def left_behind():
    """Starts a process that carries a run's mark."""
    started = []

    def start(run_id):
        mark = {**os.environ, "QUANTUI_PROCESS_OF": f"{run_id}:serve"}
        started.append(subprocess.Popen(["sleep", "600"], env=mark))
        wait_for(lambda: carrying(run_id.encode()))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def owned_by(folder, text):
    (folder.path / "owner.pid").write_text(text)


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_only_its_owner_may_look_into_a_runs_folder():
    assert stat.S_IMODE(RunFolder.create().path.stat().st_mode) == 0o700


def test_two_runs_of_the_same_second_have_folders_of_their_own():
    assert len({RunFolder.create().path for _ in range(20)}) == 20


def test_events_are_lines_as_they_happen_and_log_lines_are_left_out():
    folder = RunFolder.create()
    recorder = Recorder(folder)
    recorder.write(Notice(at=1.0, level="info", text="two\nlines"))
    recorder.write(LogLine(at=1.0, step="serve", text="x"))
    lines = (folder.path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["two\nlines"]
    recorder.close()


def test_a_full_disk_does_not_stop_a_run(monkeypatch):
    folder = RunFolder.create()
    (folder.path / "events.jsonl").symlink_to("/dev/full")
    recorder = Recorder(folder)
    recorder.write(Notice(at=1.0, level="info", text="x"))
    recorder.close()


def test_a_record_that_cannot_be_opened_does_not_stop_a_run():
    folder = RunFolder.create()
    (folder.path / "events.jsonl").mkdir()
    recorder = Recorder(folder)
    recorder.write(Notice(at=1.0, level="info", text="x"))
    recorder.close()


def test_a_place_where_no_folder_can_be_made_is_one_clear_error(own_home):
    own_home.write_text("a file stands in the way")
    with pytest.raises(QuantuiError) as raised:
        RunFolder.create()
    assert (raised.value.code, raised.value.exit_code) == ("run.no-record", ExitCode.DOES_NOT_FIT)
    assert "QUANTUI_HOME" in raised.value.fix


def test_what_a_dead_quantui_left_is_killed_and_told(left_behind):
    folder = RunFolder.create()
    owned_by(folder, f"{dead_pid()} 12345")
    process = left_behind(folder.run_id)
    assert clear_abandoned() == [(folder.run_id, 1)]
    assert process.wait() == -9
    assert clear_abandoned() == []


def test_a_run_whose_quantui_lives_is_left_alone(left_behind):
    folder = RunFolder.create()
    process = left_behind(folder.run_id)
    assert clear_abandoned() == []
    assert process.poll() is None


def test_a_number_that_belongs_to_another_process_now_is_no_owner(left_behind):
    folder = RunFolder.create()
    pid, started = (folder.path / "owner.pid").read_text().split()
    owned_by(folder, f"{pid} {int(started) - 1}")
    left_behind(folder.run_id)
    assert clear_abandoned() == [(folder.run_id, 1)]


def test_a_released_run_is_not_looked_for(left_behind):
    folder = RunFolder.create()
    release(folder)
    process = left_behind(folder.run_id)
    assert clear_abandoned() == []
    assert process.poll() is None


def test_an_abandoned_run_without_processes_is_not_worth_a_word():
    folder = RunFolder.create()
    owned_by(folder, f"{dead_pid()} 12345")
    assert clear_abandoned() == []
    assert not (folder.path / "owner.pid").exists()


@pytest.mark.parametrize("text", ["", "no number", "\xff", "1"])
def test_an_owner_that_cannot_be_read_stops_nobody(text):
    owned_by(RunFolder.create(), text)
    assert clear_abandoned() == []


def test_without_any_run_there_is_nothing_to_clear():
    assert not runs_dir().exists()
    assert clear_abandoned() == []
