"""What the wizard knows, and what it forgets when an answer changes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fixtures.pilots import wait_until
from textual.worker import WorkerFailed

from quantui.domain.answers import Answers
from quantui.domain.draft import Draft
from quantui.domain.hardware import Gpu, HardwareReport, Host
from quantui.tui.app import QuantuiApp
from quantui.tui.run_view import RunView
from quantui.tui.session import Session

REPORT = HardwareReport(
    gpus=(Gpu(0, name="NVIDIA L4"), Gpu(1, name="NVIDIA L4")), host=Host(), problems=()
)


def answered() -> Session:
    session = Session()
    session.hardware = REPORT
    session.answers = Answers(model="owner/model", adapter="me/lora", method="awq")
    session.subject = session.recommended = session.plan = session.facts = SimpleNamespace()
    return session


def test_another_model_forgets_everything_that_was_computed_for_the_old_one():
    session = answered()
    assert session.answer(model="owner/other") == ("the adapter", "the method")
    assert session.subject is session.recommended is session.plan is None


def test_another_method_keeps_the_model_and_the_ranking():
    session = answered()
    assert session.answer(method="fp8_dynamic") == ()
    assert session.subject is not None
    assert session.recommended is not None
    assert session.plan is None


def test_the_same_answer_again_forgets_nothing():
    session = answered()
    assert session.answer(model="owner/model", adapter="me/lora") == ()
    assert session.plan is not None


def test_an_answer_puts_an_opened_profile_away():
    session = answered()
    session.loaded = Draft()
    session.answer(use_case="max-speed")
    assert session.loaded is None


def test_an_option_set_by_hand_changes_an_opened_profile():
    session = answered()
    session.loaded = Draft()
    session.set_option("serve", "port", 9000)
    assert session.draft is not None
    assert session.draft.serve.port == 9000


def test_the_rail_tells_what_was_chosen():
    session = answered()
    session.recommended = None
    assert session.chosen("hardware") == "2 x NVIDIA L4"
    assert session.chosen("use_case") == "balanced, 8192 tokens, 4 users"
    assert session.chosen("model") == "model + lora"
    assert session.chosen("method") == ""


def test_one_of_two_gpus_is_told_as_one():
    session = answered()
    session.answer(gpus=(1,))
    assert session.chosen("hardware") == "1 x NVIDIA L4"
    session.answer(gpus=())
    assert session.chosen("hardware") == "CPU"


def test_a_described_machine_is_a_simulated_one():
    assert Session("other.json").simulated
    assert not Session().simulated


def test_a_run_that_was_not_heard_of_is_starting():
    session = Session()
    session.run = RunView()
    assert session.chosen("run") == "starting"


async def test_what_breaks_in_the_background_is_a_defect_that_is_told(monkeypatch):
    def broken():
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr("quantui.runtime.probe.probe_hardware", broken)
    app = QuantuiApp()
    with pytest.raises(WorkerFailed):
        async with app.run_test(size=(80, 24)) as pilot:
            await wait_until(pilot, lambda: app.defect is not None)
    assert isinstance(app.defect, ZeroDivisionError)
