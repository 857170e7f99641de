"""Events survive the trip through JSON unchanged, and a later version's do no harm."""

from __future__ import annotations

import dataclasses
import json

import pytest

from quantui.domain.events import (
    EVENT_TYPES,
    Answered,
    LogLine,
    Measured,
    MemorySample,
    Notice,
    RunEvent,
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
    to_dict,
)

ERROR = {"code": "a.b", "what": "x", "why": "", "fix": "", "exit_code": 4, "detail": ["l"]}
EXAMPLES = [
    RunStarted(at=1.5, run_id="r", steps=(("merge", "m"), ("serve", "s")), directory="/d",
               quantui_version="1"),
    StepStarted(at=1.0, step="merge", detail="cuda:0"),
    StepProgress(at=1.0, step="merge", done=1.0, total=None, unit="tensors", message="x"),
    StepPhase(at=1.0, step="serve", phase="loading weights"),
    StepReused(at=1.0, step="merge", artifact="/a"),
    StepFinished(at=1.0, step="merge", seconds=2.0, result={"tensors": [1, 2], "nested": {"a": None}}),
    StepFailed(at=1.0, step="merge", error=ERROR, final=False),
    Notice(at=1.0, level="warning", text="ä\n\x1b[31m \U0001f600"),
    LogLine(at=1.0, step="serve", text="line"),
    MemorySample(at=1.0, tree_bytes=None, ram_available_bytes=5, gpus=((0, 1, 2), (1, 3, 4))),
    Measured(at=1.0, name="weights", value=1.25, unit="bytes", source="log", predicted=None),
    ServerReady(at=1.0, url="http://x/v1", model="m", pid=3, seconds=4.0),
    Answered(at=1.0, prompt="p", text="t", tokens=3, seconds=0.5),
    RunFinished(at=1.0, outcome="failed", exit_code=3, seconds=9.0, error=ERROR),
]  # fmt: skip


def test_there_is_an_example_of_every_type():
    assert {type(event) for event in EXAMPLES} == set(EVENT_TYPES.values())
    assert set(EVENT_TYPES.values()) == set(RunEvent.__subclasses__())


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_an_event_comes_back_from_json_as_it_was(event):
    assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_the_json_form_says_first_what_and_when(event):
    assert list(to_dict(event))[:2] == ["type", "at"]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_what_a_later_version_adds_is_left_out(event):
    assert from_dict({**to_dict(event), "of_a_later_version": [1]}) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_a_field_that_is_missing_is_an_error_that_names_the_type(event):
    needed = [f.name for f in dataclasses.fields(event) if f.default is dataclasses.MISSING]
    for name in needed:
        data = {key: value for key, value in to_dict(event).items() if key != name}
        with pytest.raises(ValueError, match=event.type):
            from_dict(data)


@pytest.mark.parametrize("data", [{}, {"type": "step.unheard-of", "at": 1}, {"type": None}])
def test_an_unknown_type_is_an_error(data):
    with pytest.raises(ValueError, match="unknown event type"):
        from_dict(data)
