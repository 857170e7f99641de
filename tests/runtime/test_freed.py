"""Whether a run gave everything back is seen from its processes and the GPUs, not from what it says."""

from __future__ import annotations

import os
import subprocess
import sys

from quantui.runtime.freed import Held, held
from quantui.runtime.process import MARK

GIB = 1 << 30


def test_a_process_that_carries_the_mark_is_held_memory():
    environment = {**os.environ, MARK: "some-run:serve"}
    code = "print('up', flush=True); import time; time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        found = held("some-run")
        process.kill()
    assert found.pids == (process.pid,)
    assert found.ram_bytes > 0
    assert not found.gave_back({})
    assert held("some-run").pids == ()
    assert held("some-run").gave_back({})


def test_a_card_has_to_be_as_free_as_before_give_or_take_what_others_do():
    before = {0: 2 * GIB}
    assert Held((), 0, {0: 2 * GIB + (100 << 20)}).gave_back(before)
    assert not Held((), 0, {0: 3 * GIB}).gave_back(before)


def test_a_lost_card_holds_nothing_back():
    assert Held((), 0, {0: None}).gave_back({0: GIB})
