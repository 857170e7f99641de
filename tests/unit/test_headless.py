"""What a run looks like without a screen: a line for each thing that happens, JSON for programs."""

from __future__ import annotations

import io
import json
import os
import signal
import threading

import pytest
from rich.console import Console

from quantui.domain.events import (
    Answered,
    LogLine,
    Measured,
    MemorySample,
    Notice,
    RunFinished,
    RunStarted,
    ServerReady,
    StepFailed,
    StepFinished,
    StepPhase,
    StepProgress,
    StepReused,
    StepStarted,
    from_dict,
)
from quantui.domain.run_state import RunState, reduce
from quantui.headless import (
    JsonLines,
    Lines,
    cancel_on_signals,
    follow,
    living_line,
    measurements,
)

HOSTILE = "\x1b[31m[bold]evil[/nothing]\x1b]0;title\x07\u202e\r\n"
STARTED = RunStarted(
    at=0.0,
    run_id="r",
    steps=(("merge", "merge my-lora into base"), ("serve", "serve with vLLM"), ("check", "ask")),
    directory="/d",
    quantui_version="1",
)
MERGED = {"tensors_changed": 8, "tensors_untouched": 3, "bytes": 2**30, "peak_rss_bytes": 2**31}
WHOLE = [
    STARTED,
    Notice(at=0.0, level="info", text="an adapter trained in 4 bit"),
    StepStarted(at=0.0, step="merge", detail="cuda:0"),
    StepFailed(at=1.0, step="merge", error={"what": "Too little VRAM."}, final=False),
    StepStarted(at=1.0, step="merge", detail="cpu"),
    StepProgress(at=1.0, step="merge", done=1.0, total=2.0, unit="tensors"),
    LogLine(at=1.0, step="merge", text="not shown"),
    StepFinished(at=66.0, step="merge", seconds=65.0, result=MERGED),
    StepStarted(at=66.0, step="serve", detail="/e/bin/python"),
    ServerReady(at=70.0, url="http://127.0.0.1:8000/v1", model="mine", pid=1, seconds=4.0),
    StepFinished(at=70.0, step="serve", seconds=4.0, result={}),
    Answered(at=71.0, prompt="The capital", text="is\nParis", tokens=3, seconds=0.5),
    Notice(at=71.0, level="warning", text="slow"),
    RunFinished(at=72.0, outcome="ok", exit_code=0, seconds=72.0),
]


def shown(*events):
    out = io.StringIO()
    follow(events, Lines(Console(file=out, width=100, color_system=None)))
    return out.getvalue()


def state_of(*events):
    state = RunState()
    for event in (STARTED, *events):
        state = reduce(event, state)
    return state


def test_a_whole_run_is_a_line_for_each_thing_that_happened():
    assert shown(*WHOLE).splitlines() == [
        "  · an adapter trained in 4 bit",
        "→ merge my-lora into base on cuda:0",
        "! merge: Too little VRAM. Trying the next way.",
        "→ merge my-lora into base on cpu",
        "✓ merge: 1 min 05 s, 8 tensors changed, 3 untouched, 1.00 GiB written, peak 2.00 GiB",
        "→ serve with vLLM",
        "  ready at http://127.0.0.1:8000/v1 as mine, 4.0 s after the start",
        "✓ serve: 4.0 s",
        "  asked   The capital",
        "  answer  is Paris",
        "  ! slow",
    ]


def test_a_reused_step_is_told_once():
    lines = shown(
        STARTED,
        StepReused(at=0.0, step="merge", artifact="/a"),
        StepFinished(at=0.0, step="merge", seconds=0.0, result={}),
    ).splitlines()
    assert lines == ["✓ merge: made before, reused from /a"]


def test_a_failure_that_is_final_has_its_own_mark():
    failed = StepFailed(at=1.0, step="merge", error={"what": "Other base."}, final=True)
    assert shown(STARTED, failed).splitlines() == ["✗ merge: Other base."]


@pytest.mark.parametrize(
    "event",
    [
        Notice(at=1.0, level="info", text=HOSTILE),
        StepStarted(at=1.0, step="merge", detail=HOSTILE),
        StepReused(at=1.0, step="merge", artifact=HOSTILE),
        StepFailed(at=1.0, step="merge", error={"what": HOSTILE}, final=True),
        ServerReady(at=1.0, url="http://x", model=HOSTILE, pid=1, seconds=1.0),
        Answered(at=1.0, prompt=HOSTILE, text=HOSTILE, tokens=1, seconds=1.0),
    ],
    ids=lambda event: event.type,
)
def test_untrusted_text_is_printed_as_text(event):
    out = shown(STARTED, event)
    assert "[bold]evil[/nothing]" in out
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(out)
    assert "title" not in out


def test_untrusted_text_in_the_living_line_is_no_markup():
    phase = StepPhase(at=1.0, step="serve", phase=HOSTILE)
    state = state_of(StepStarted(at=1.0, step="serve"), phase)
    out = io.StringIO()
    lines = Lines(Console(file=out, force_terminal=True, width=100, color_system=None))
    lines.heard(LogLine(at=2.0, step="serve", text="not shown"), state)
    lines.close()
    assert "[bold]evil[/nothing]" in out.getvalue()
    assert "\x1b[31m" not in out.getvalue()


def test_the_living_line_says_step_phase_progress_and_memory():
    state = state_of(
        StepStarted(at=0.0, step="merge"),
        StepPhase(at=0.0, step="merge", phase="writing"),
        StepProgress(at=0.0, step="merge", done=0.0, total=4 * 2**30, unit="bytes"),
        StepProgress(at=10.0, step="merge", done=2**30, total=4 * 2**30, unit="bytes"),
        MemorySample(at=10.0, tree_bytes=2**30, ram_available_bytes=1, gpus=((0, 2**30, 2**34),)),
    )
    assert living_line(state, 10.0) == (
        "merge  writing  1.00 GiB of 4.00 GiB, 102 MiB/s, 30.0 s left  RAM 1.00 GiB  "
        "GPU 0 1.00 GiB of 16.00 GiB"
    )


def test_a_rate_is_told_of_bytes_alone_and_a_phase_named_as_its_step_once():
    state = state_of(
        StepStarted(at=0.0, step="merge"),
        StepPhase(at=0.0, step="merge", phase="merge"),
        StepProgress(at=0.0, step="merge", done=0.0, total=40.0, unit="tensors"),
        StepProgress(at=10.0, step="merge", done=10.0, total=40.0, unit="tensors"),
    )
    assert living_line(state, 10.0) == "merge  10/40 tensors, 30.0 s left"


def test_of_a_merge_that_goes_on_what_was_there_is_no_part_of_the_rate():
    state = state_of(
        StepStarted(at=0.0, step="merge"),
        StepProgress(at=0.0, step="merge", done=3.0 * 2**30, total=4.0 * 2**30, unit="bytes"),
        StepProgress(at=4.0, step="merge", done=3.5 * 2**30, total=4.0 * 2**30, unit="bytes"),
    )
    assert living_line(state, 4.0) == "merge  3.50 GiB of 4.00 GiB, 128 MiB/s, 4.0 s left"


def test_a_merge_through_peft_says_so():
    finished = StepFinished(at=9.0, step="merge", seconds=9.0, result={**MERGED, "method": "peft"})
    assert shown(STARTED, finished).startswith("✓ merge: 9.0 s through PEFT, 8 tensors changed")


def test_the_living_line_does_not_guess():
    started = StepStarted(at=0.0, step="merge")
    first = StepProgress(at=0.0, step="merge", done=3.0, total=None, unit="shards")
    assert living_line(state_of(started, first), 1.0) == "merge  3/? shards, estimating..."
    assert living_line(state_of(started), 5.0) == "merge  5.0 s"


def test_while_a_server_is_held_the_living_line_says_how_to_stop():
    state = state_of(ServerReady(at=1.0, url="u", model="mine", pid=1, seconds=1.0))
    assert living_line(state, 2.0) == "serving mine; Ctrl-C stops"


def test_json_is_an_event_a_line_and_log_lines_are_left_out(capsys):
    follow(WHOLE, JsonLines())
    lines = capsys.readouterr().out.splitlines()
    told = [event for event in WHOLE if not isinstance(event, LogLine)]
    assert [from_dict(json.loads(line)) for line in lines] == told


def test_measurements_stand_beside_what_was_predicted_with_their_source():
    state = state_of(
        Measured(at=1.0, name="weights", value=2.0**30, unit="bytes", source="log", predicted=2.0**31),
        Measured(at=1.0, name="KV cache", value=32768.0, unit="tokens", source="/metrics", predicted=30000.0),
        Measured(at=1.0, name="decoding", value=12.345, unit="tokens/s", source="one request"),
        Measured(at=1.0, name="perplexity", value=100.0, unit="", source="99 tokens"),
        MemorySample(at=1.0, tree_bytes=2**30, ram_available_bytes=1, gpus=((1, 2**30, 2**34),)),
    )  # fmt: skip
    assert [" ".join(line.split()) for line in measurements(state)] == [
        "weights 1.00 GiB (predicted 2.00 GiB) [log]",
        "KV cache 32,768 tokens (predicted 30,000 tokens) [/metrics]",
        "decoding 12.35 tokens/s [one request]",
        "perplexity 100 [99 tokens]",
        "peak RAM 1.00 GiB [all steps]",
        "peak GPU 1 1.00 GiB [NVML, whole card]",
    ]


def test_a_run_is_closed_when_it_cannot_be_shown():
    closed = []

    def events():
        try:
            yield STARTED
            yield STARTED
        finally:
            closed.append(True)

    class Broken:
        def heard(self, event, state):
            raise BrokenPipeError

        def close(self):
            closed.append(False)

    with pytest.raises(BrokenPipeError):
        follow(running := events(), Broken())
    assert closed == [False, True]
    assert running.gi_frame is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_and_the_handler_before_is_put_back(number):
    # Under nohup SIGHUP is ignored, and would stay so.
    found = signal.signal(number, signal.default_int_handler)
    try:
        with cancel_on_signals() as cancel:
            assert isinstance(cancel, threading.Event)
            assert not cancel.is_set()
            os.kill(os.getpid(), number)
            assert cancel.wait(60)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, found)
