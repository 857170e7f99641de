"""``from quantui import fit, recommend``: the same answers as the commands, as objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fixtures.described_machines import L4, QWEN_7B, machine, model

import quantui
from quantui import QuantuiError
from quantui.cli import main
from quantui.domain.errors import ExitCode
from quantui.domain.hardware import HardwareReport
from quantui.runtime.described_hardware import described_hardware

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return model(tmp_path, QWEN_7B)


@pytest.fixture
def l4(tmp_path: Path) -> Path:
    return machine(tmp_path, L4)


def test_fit_says_what_the_command_says(qwen, l4, capsys):
    answer = quantui.fit(qwen, "awq", context=8192, users=16, hardware=l4)
    assert answer.verdict == "fits"
    main(["fit", str(qwen), "--method", "awq", "--context", "8192", "--users", "16",
          "--hardware", str(l4), "--json"])  # fmt: skip
    assert json.loads(capsys.readouterr().out) == answer.to_dict()


def test_recommend_says_what_the_command_says(qwen, l4, capsys):
    answer = quantui.recommend(qwen, use_case="many-users", users=32, hardware=l4)
    assert answer.recommendation.choices[0].rank == 1
    main(["recommend", str(qwen), "--use-case", "many-users", "--users", "32",
          "--hardware", str(l4), "--json"])  # fmt: skip
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(answer.to_dict()))


def test_a_report_is_taken_as_well_as_a_file(qwen, l4):
    report = described_hardware(str(l4))
    assert (
        quantui.fit(qwen, hardware=report).fit.weights == quantui.fit(qwen, hardware=l4).fit.weights
    )


def test_that_it_does_not_fit_is_an_answer_and_no_error(qwen, l4):
    answer = quantui.fit(qwen, context=32768, users=500, hardware=l4)
    assert answer.verdict == "does not fit"
    assert answer.change is not None


def test_no_gpus_are_the_cpu(qwen, l4):
    assert quantui.fit(qwen, hardware=l4, gpus=[]).on_cpu
    assert quantui.recommend(qwen, hardware=l4, gpus=()).recommendation.on_cpu


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"context": 0}, "api.bad-argument"),
        ({"context": "8k"}, "api.bad-argument"),
        ({"users": True}, "api.bad-argument"),
        ({"users": -1}, "api.bad-argument"),
        ({"utilization": 1.1}, "arguments.bad-value"),
        ({"utilization": float("nan")}, "arguments.bad-value"),
        ({"utilization": "most"}, "arguments.bad-value"),
        ({"kv_dtype": "fp7"}, "arguments.bad-value"),
        ({"dtype": "int3"}, "arguments.bad-value"),
        ({"vllm_version": "new"}, "arguments.bad-value"),
        ({"method": "aqw"}, "method.unknown"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_looked_up(arguments, code):
    with pytest.raises(QuantuiError) as caught:
        quantui.fit("/nowhere/model", hardware=HardwareReport(), **arguments)
    assert caught.value.code == code


def test_a_gpu_that_is_not_there_is_an_error(qwen, l4):
    with pytest.raises(QuantuiError) as caught:
        quantui.recommend(qwen, hardware=l4, gpus=[7])
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
