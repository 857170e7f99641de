"""Title and bell: they tell somebody who looks elsewhere how the run stands."""

from __future__ import annotations

import pytest

from quantui.domain.events import (
    RunFinished,
    RunStarted,
    ServerReady,
    StepFinished,
    StepProgress,
    StepStarted,
)
from quantui.tui.run_view import RunView
from quantui.tui.terminal import Terminal, title_of

STARTED = RunStarted(
    at=0.0, run_id="r", steps=(("serve", "serve"),), directory="/d", quantui_version="1"
)
BEGUN = StepStarted(at=1.0, step="serve")
HALF = StepProgress(at=2.0, step="serve", done=1, total=2, unit="shards")
READY = (
    ServerReady(at=3.0, url="http://x/v1", model="mine\x1b]0;evil\x07", pid=1, seconds=1.0),
    StepFinished(at=3.0, step="serve", seconds=2.0, result={}),
)
ENDED = RunFinished(at=4.0, outcome="failed", exit_code=3, seconds=4.0, error={})


def view_of(*events):
    view = RunView()
    for event in events:
        view.heard(event)
    return view


@pytest.mark.parametrize(
    ("events", "title"),
    [
        ((), "quantui: starting"),
        ((STARTED, BEGUN), "quantui: serve"),
        ((STARTED, BEGUN, HALF), "quantui: serve 50%"),
        ((STARTED, BEGUN, *READY), "quantui: serving mine"),
        ((STARTED, BEGUN, ENDED), "quantui: failed"),
    ],
)
def test_the_title_says_how_the_run_stands(events, title):
    assert title_of(view_of(*events)) == title


class Written:
    """An app as the title needs it: what goes to the terminal is kept."""

    def __init__(self, *, headless=False):
        self.is_headless = headless
        self.sent = ""
        self.bells = 0
        self._driver = self

    def write(self, text):
        self.sent += text

    def bell(self):
        self.bells += 1


def test_the_bell_rings_once_when_it_is_ready_and_once_at_the_end():
    app = Written()
    terminal = Terminal(app)
    view = view_of(STARTED, BEGUN)
    terminal.follow(view)
    assert app.bells == 0
    for event in READY:
        view.heard(event)
    terminal.follow(view)
    terminal.follow(view)
    assert app.bells == 1
    view.heard(ENDED)
    terminal.follow(view)
    assert app.bells == 2


def test_what_was_stopped_by_hand_rings_no_bell():
    app = Written()
    view = view_of(STARTED, BEGUN)
    view.cancel()
    view.heard(ENDED)
    Terminal(app).follow(view)
    assert app.bells == 0


def test_the_terminal_gets_its_own_title_back():
    app = Written()
    terminal = Terminal(app)
    terminal.title("quantui: merge")
    terminal.close()
    assert app.sent.startswith("\x1b[22;2t\x1b]2;quantui: merge\x07")
    assert app.sent.endswith("\x1b[23;2t")


def test_without_a_terminal_nothing_is_written():
    app = Written(headless=True)
    Terminal(app).title("quantui: merge")
    assert app.sent == ""
