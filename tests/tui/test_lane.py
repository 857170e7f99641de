"""Work of which only the newest matters."""

from __future__ import annotations

import threading

from quantui.tui.lane import Lane


def test_of_those_that_wait_only_the_newest_is_done():
    done, begun, go_on, last = [], threading.Event(), threading.Event(), threading.Event()
    lane = Lane("test", done.append)

    def slow(stopped):
        begun.set()
        go_on.wait(10)
        done.append(("slow", stopped()))

    lane.ask(slow)
    assert begun.wait(10)
    lane.ask(lambda _: done.append("never"))
    lane.ask(lambda stopped: (done.append(("last", stopped())), last.set()))
    go_on.set()
    assert last.wait(10)
    assert done == [("slow", True), ("last", False)]


def test_what_is_dropped_is_told_and_nothing_follows():
    done, begun, go_on, end = [], threading.Event(), threading.Event(), threading.Event()
    lane = Lane("test", done.append)

    def slow(stopped):
        begun.set()
        go_on.wait(10)
        done.append(stopped())
        end.set()

    lane.ask(slow)
    assert begun.wait(10)
    lane.ask(lambda _: done.append("never"))
    lane.drop()
    go_on.set()
    assert end.wait(10)
    again = threading.Event()
    lane.ask(lambda _: again.set())
    assert again.wait(10)
    assert done == [True]


def test_a_defect_is_told_and_the_lane_goes_on():
    failed, told, end = [], threading.Event(), threading.Event()

    def keep(error):
        failed.append(error)
        told.set()

    lane = Lane("test", keep)
    lane.ask(lambda _: {}["x"])
    assert told.wait(10)
    lane.ask(lambda _: end.set())
    assert end.wait(10)
    assert isinstance(failed[0], KeyError)
