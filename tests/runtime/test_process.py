"""No process of a run survives it: stubborn children, orphans, and deaths of the keeper and of quantui."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from live_processes import alive, carrying, wait_for

from quantui.domain.errors import ExitCode
from quantui.runtime.process import KeptProcess, reap_abandoned, start_failure

STUBBORN = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""

REPORTS_SIGNALS = """
import signal, sys, time
def tell(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(0)
signal.signal(signal.SIGINT, tell)
signal.signal(signal.SIGTERM, tell)
print("up", flush=True)
while True:
    time.sleep(600)
"""

# A daemon's way out: a session of its own, and its parent gone.
ESCAPES = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        print("orphan", os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
"""


@pytest.fixture
def run_id():
    """A run of this test's own; whatever of it is alive in the end is killed and is a failure."""
    name = f"test-{secrets.token_hex(6)}"
    yield name
    left = carrying(name.encode())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def start(run_id, tmp_path):
    started = []

    def begin(program, **options):
        argv = [sys.executable, "-c", program] if isinstance(program, str) else program
        log = options.pop("log", tmp_path / "child.log")
        process = KeptProcess(argv, run_id=run_id, name="step", log=log, **options)
        started.append(process)
        process.log = log
        return process

    yield begin
    for process in started:
        process.close()


def told(process, text):
    """Waits until the child's log holds ``text``; gives the rest of that line."""

    def found():
        if not process.log.exists():
            return None
        lines = process.log.read_text().splitlines(keepends=True)
        return next((line for line in lines if line.startswith(text) and line.endswith("\n")), None)

    return wait_for(found).removeprefix(text).strip()


def test_the_exit_status_of_a_child_is_told(start):
    assert start("raise SystemExit(7)").wait_gone().exit_code == 7


def test_a_signal_that_ends_a_child_is_told_as_a_negative_number(start):
    process = start("import os; os.kill(os.getpid(), 11)")
    assert process.wait_gone().exit_code == -signal.SIGSEGV


def test_both_streams_are_appended_to_the_log(start, tmp_path):
    (tmp_path / "child.log").write_text("before\n")
    start("import sys; print('out', flush=True); print('err', file=sys.stderr)").wait_gone()
    assert (tmp_path / "child.log").read_text() == "before\nout\nerr\n"


def test_only_its_owner_may_read_the_log(start, tmp_path):
    start("pass").wait_gone()
    assert (tmp_path / "child.log").stat().st_mode & 0o077 == 0


def test_a_child_gets_the_environment_that_is_given_and_the_one_that_was_there(start, monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "1")
    process = start("import os; print(os.environ['FROM_OUTSIDE'], os.environ['GIVEN'])",
                    env={"GIVEN": "ä 2"})  # fmt: skip
    process.wait_gone()
    assert process.log.read_text() == "1 ä 2\n"


def test_an_environment_that_is_not_utf8_reaches_the_child_unchanged(start, monkeypatch):
    monkeypatch.setitem(os.environb, b"ODD", b"\xff\xfe")
    process = start("import os; print(os.environb[b'ODD'])")
    process.wait_gone()
    assert process.log.read_text() == "b'\\xff\\xfe'\n"


def test_a_child_writes_events_on_a_pipe_of_its_own(start):
    process = start(
        "import os; os.write(int(os.environ['QUANTUI_EVENTS_FD']), b'{}\\n')", events=True
    )
    process.wait_gone()
    assert os.read(process.events_fd, 100) == b"{}\n"
    assert os.read(process.events_fd, 100) == b""


def test_a_child_without_events_finds_no_pipe_named_by_an_outer_quantui(start, monkeypatch):
    monkeypatch.setenv("QUANTUI_EVENTS_FD", "3")
    process = start("import os; print('QUANTUI_EVENTS_FD' in os.environ)")
    process.wait_gone()
    assert process.log.read_text() == "False\n"


def test_a_child_has_no_other_file_of_quantui_open(start, tmp_path):
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        process = start("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
        process.wait_gone()
    assert process.log.read_text() == "[0, 1, 2]\n"


def test_a_program_that_does_not_exist_is_an_engine_that_cannot_start(start):
    process = start(["/nonexistent/python", "-V"])
    error = start_failure(process.wait_gone(), process.argv)
    assert error is not None
    assert (error.code, error.exit_code) == ("engine.cannot-start", ExitCode.ENGINE)
    assert "/nonexistent/python" in error.what
    assert "No such file" in error.why


def test_an_argument_no_program_can_be_given_is_an_error_too(start):
    process = start([sys.executable, "-c", "pass", "a\0b"])
    assert "null byte" in start_failure(process.wait_gone(), process.argv).why


def test_a_log_that_cannot_be_made_is_named(start, tmp_path):
    process = start("pass", log=tmp_path / "missing" / "child.log")
    assert "missing/child.log" in start_failure(process.wait_gone(), process.argv).why


def test_a_child_that_ended_by_itself_is_no_failure_to_start(start):
    process = start("raise SystemExit(3)")
    assert start_failure(process.wait_gone(), process.argv) is None


def test_a_child_that_ignores_every_polite_signal_is_killed(start):
    process = start(STUBBORN, stop_plan=[(0.0, "INT"), (0.1, "TERM"), (0.2, "KILL")])
    told(process, "up")
    process.request_stop()
    assert process.wait_gone().exit_code == -signal.SIGKILL


def test_signals_of_the_stop_plan_come_in_its_order(start):
    process = start(REPORTS_SIGNALS, stop_plan=[(0.0, "INT"), (0.2, "TERM"), (300.0, "KILL")])
    told(process, "up")
    process.request_stop()
    assert process.wait_gone().exit_code == 0
    assert process.log.read_text().splitlines() == ["up", "SIGINT", "SIGTERM"]


def test_a_child_is_interruptible_where_quantui_itself_ignores_interrupts(run_id, tmp_path):
    # As under nohup, or in the background of a script: an ignored signal is inherited through exec.
    program = textwrap.dedent("""
        import signal, sys
        from pathlib import Path
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from quantui.runtime.process import KeptProcess
        code = "import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)"
        log = Path(sys.argv[2])
        KeptProcess([sys.executable, "-c", code], run_id=sys.argv[1], name="x", log=log).wait_gone()
    """)
    log = tmp_path / "child.log"
    subprocess.run([sys.executable, "-c", program, run_id, log], check=True, timeout=60)
    assert log.read_text() == "True\n"


def test_an_orphan_in_a_session_of_its_own_ends_with_its_run(start):
    process = start(ESCAPES)
    orphan = int(told(process, "orphan"))
    assert process.wait_gone().exit_code == 0
    assert not alive(orphan)


def test_an_orphan_without_the_mark_is_found_as_a_descendant(start):
    process = start(
        "import os; os.environb.clear(); "
        "os.execve('/bin/sh', ['sh', '-c', 'setsid sleep 600 & echo orphan $!; exit 0'], "
        "{'PATH': os.defpath})"
    )
    orphan = int(told(process, "orphan"))
    process.wait_gone()
    assert not alive(orphan)


def test_a_killed_keeper_takes_child_and_orphans_with_it(start, run_id):
    process = start(ESCAPES.replace("os.wait()", "time.sleep(600)"))
    told(process, "orphan")
    os.kill(process.keeper_pid, signal.SIGKILL)
    status = process.wait_gone()
    assert status.exit_code == -signal.SIGKILL
    assert carrying(run_id.encode()) == []


def test_quantui_killed_leaves_nothing(run_id, tmp_path):
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from quantui.runtime.process import KeptProcess
        KeptProcess(
            [sys.executable, "-c", sys.argv[3]], run_id=sys.argv[1], name="x",
            log=Path(sys.argv[2]), stop_plan=[(0.0, "INT"), (0.3, "KILL")],
        )
        time.sleep(600)
    """)
    log = tmp_path / "child.log"
    child = ESCAPES.replace("os.wait()", STUBBORN)
    quantui = subprocess.Popen([sys.executable, "-c", program, run_id, log, child])
    wait_for(lambda: log.exists() and {"up", "orphan"} <= set(log.read_text().split()))
    assert len(carrying(run_id.encode())) >= 2
    quantui.kill()
    quantui.wait()
    wait_for(lambda: not carrying(run_id.encode()))
    wait_for(lambda: not carrying(run_id.encode(), "cmdline"))


def test_the_kernel_ends_a_child_whose_keeper_is_killed_while_quantui_cannot_act(run_id, tmp_path):
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from quantui.runtime.process import KeptProcess
        kept = KeptProcess(
            [sys.executable, "-c", sys.argv[3]], run_id=sys.argv[1], name="x", log=Path(sys.argv[2])
        )
        print(kept.keeper_pid, flush=True)
        time.sleep(600)
    """)
    log = tmp_path / "child.log"
    quantui = subprocess.Popen(
        [sys.executable, "-c", program, run_id, log, STUBBORN], stdout=subprocess.PIPE, text=True
    )
    keeper = int(quantui.stdout.readline())
    wait_for(lambda: log.exists() and "up" in log.read_text())
    quantui.send_signal(signal.SIGSTOP)
    try:
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: not carrying(run_id.encode()))
    finally:
        quantui.kill()
        quantui.wait()


def test_what_a_run_left_whose_quantui_and_keeper_died_can_be_reaped(run_id):
    left = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "QUANTUI_PROCESS_OF": f"{run_id}:serve"}
    )
    wait_for(lambda: carrying(run_id.encode()))
    assert reap_abandoned(run_id) == 1
    assert left.wait() == -signal.SIGKILL


def test_reaping_a_run_spares_a_run_whose_name_only_begins_like_it(run_id):
    other = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "QUANTUI_PROCESS_OF": f"{run_id}-2:serve"}
    )
    wait_for(lambda: carrying(run_id.encode()))
    assert reap_abandoned(run_id) == 0
    assert other.poll() is None
    other.kill()
    other.wait()


def test_no_command_line_shows_a_key(start, run_id):
    key = f"sk-{secrets.token_hex(8)}"
    process = start("print('up', flush=True); import time; time.sleep(600)", env={"API_KEY": key})
    told(process, "up")
    assert carrying(key.encode(), "environ")
    assert carrying(key.encode(), "cmdline") == []


def test_closing_twice_leaves_files_alone_that_took_over_the_numbers(start, tmp_path):
    process = start("pass")
    process.close()
    files = [(tmp_path / f"other-{n}").open("w+b", buffering=0) for n in range(8)]
    process.request_stop()
    process.status()
    process.close()
    for file in files:
        file.write(b"mine")
        file.seek(0)
        assert file.read() == b"mine"
        file.close()


def test_what_the_keeper_tells_between_a_look_and_its_end_is_not_missed(start, monkeypatch):
    process = start("raise SystemExit(5)")
    read = os.read

    def read_too_early(fd, size):
        """The pipe is found empty, and before anything else is asked the keeper speaks and ends."""
        try:
            return read(fd, size)
        except BlockingIOError:
            os.waitid(os.P_PID, process.keeper_pid, os.WEXITED | os.WNOWAIT)
            raise

    monkeypatch.setattr(os, "read", read_too_early)
    assert process.wait_gone().exit_code == 5


def test_the_status_pipe_wakes_a_selector(start):
    process = start("pass")
    assert select.select([process.status_fd], [], [], 60)[0] == [process.status_fd]


def test_the_processes_below_the_keeper_are_listed_for_the_sampler(start):
    process = start("import subprocess; print('up', flush=True); subprocess.run(['sleep', '600'])")
    told(process, "up")
    wait_for(lambda: len(process.pids()) == 2)
    process.close()
    assert process.pids() == []
