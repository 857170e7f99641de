"""``from quantui import ...``: what is offered, what loading it costs, what it refuses before any work."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.checkpoint_folders import adapter_files, model_files, write

import quantui
from quantui import FourBitVerdict, PreparedModel, QuantuiError
from quantui.domain.draft import Draft, ModelChoice, ServeChoice
from quantui.domain.memory import MemoryEstimate
from quantui.domain.plan import EngineFacts
from quantui.engines.planning import Facts, build_plan
from quantui.engines.vllm_server import engine_arguments, server_argv
from quantui.runtime.models import resolve_adapter, resolve_model
from quantui.runtime.probe import probe_hardware

CALLS = (
    "prepare_model_for_vllm", "get_or_create_merged_model", "merge_adapter", "was_trained_in_4bit",
    "quantize_model", "quantize_to_awq", "get_or_create_awq_model", "fit", "recommend",
    "list_cache", "free_cache", "verify_cache",
)  # fmt: skip
HEAVY = {
    "asyncio", "huggingface_hub", "psutil", "pynvml", "rich", "textual", "tomlkit", "torch", "vllm",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Names in sys.modules of a fresh interpreter after ``code``."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_no_library_and_no_other_module_of_it():
    loaded = modules_after("import quantui")
    assert {name for name in loaded if name.startswith("quantui.")} == set()
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", CALLS)
def test_naming_a_call_loads_no_heavy_library(name):
    loaded = modules_after(f"from quantui import {name}")
    assert loaded & {"quantui.api", "quantui.advice"}
    assert not loaded & HEAVY


def test_every_offered_name_is_there_and_listed():
    for name in quantui.__all__:
        assert getattr(quantui, name) is not None
        assert name in dir(quantui)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="prepare_model"):
        quantui.prepare_model  # noqa: B018


def test_prepare_keeps_its_signature():
    parameters = inspect.signature(quantui.prepare_model_for_vllm).parameters
    shown = [(name, p.default) for name, p in parameters.items()]
    assert shown == [
        ("model_id", inspect.Parameter.empty), ("use_quantization", True), ("adapter", None),
        ("method", None), ("revision", None), ("adapter_revision", None), ("engine_python", None),
        ("max_model_len", None), ("merge_device", "auto"), ("recreate", False),
        ("trust_remote_code", False), ("on_event", None), ("calibration", "builtin"),
        ("max_loss", None), ("producer_python", None),
    ]  # fmt: skip
    keywords = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert keywords == [name for name, _ in shown[2:]]


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_and_error_is_documented(name):
    call = getattr(quantui, name)
    document = inspect.getdoc(call)
    for parameter in inspect.signature(call).parameters:
        assert f"{parameter}:" in document
    assert "Example::" in document
    assert "QuantuiError" in document


ESTIMATE = MemoryEstimate(10, 2, 4096, 0, 5, 2048, None, {"weights": "the test"})


def prepared() -> PreparedModel:
    return PreparedModel(
        "/models/merged",
        engine_args={"quantization": "bitsandbytes", "max_model_len": 2048},
        adapter_merged=True,
        source="base + adapter",
        estimate=ESTIMATE,
    )


def test_a_prepared_model_is_its_path():
    model = prepared()
    assert model == "/models/merged"
    assert type(str(model)) is str
    assert Path(model).name == "merged"
    assert json.dumps(model) == '"/models/merged"'


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_prepared_model_survives_pickling(protocol):
    again = pickle.loads(pickle.dumps(prepared(), protocol))
    assert repr(again) == repr(prepared())
    assert again.estimate == ESTIMATE


def test_a_prepared_model_can_be_copied_and_shows_its_arguments():
    assert copy.deepcopy(prepared()).engine_args == prepared().engine_args
    assert "'quantization': 'bitsandbytes'" in repr(prepared())


def test_the_server_and_the_python_calls_are_given_the_same_arguments():
    draft = Draft(
        model=ModelChoice(id="m", trust_remote_code=True),
        serve=ServeChoice(tensor_parallel=2, dtype="float16", max_num_seqs=8, enforce_eager=True),
    )
    for on_cpu in (True, False):
        engine = EngineFacts("vllm", "/python", "profile", on_cpu=on_cpu, versions={"vllm": "0.32"})
        keywords = engine_arguments(draft, engine, ESTIMATE, quantization_argument="bitsandbytes")
        argv = server_argv(
            draft,
            engine,
            ESTIMATE,
            model_path="m",
            served_name="m",
            port=1,
            quantization_argument="bitsandbytes",
        )
        for name, value in keywords.items():
            position = argv.index("--" + name.replace("_", "-"))
            assert value is True or argv[position + 1] == str(value)


def test_a_verdict_is_true_only_when_the_answer_is_yes():
    assert FourBitVerdict(True)
    assert not FourBitVerdict(False)
    assert not FourBitVerdict(None)


def test_was_trained_in_4bit_reads_the_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    files = {**adapter_files(), "axolotl.yaml": b"adapter: qlora\nload_in_4bit: true\n"}
    verdict = quantui.was_trained_in_4bit(write(tmp_path / "a", files))
    assert verdict
    assert "axolotl.yaml" in {sign.source for sign in verdict.evidence}


def refused(call, *arguments, **keywords) -> QuantuiError:
    with pytest.raises(QuantuiError) as caught:
        call(*arguments, **keywords)
    return caught.value


def test_a_missing_model_is_named_with_what_is_near(tmp_path):
    write(tmp_path / "qwen", model_files())
    error = refused(quantui.prepare_model_for_vllm, tmp_path / "qwem")
    assert error.code == "model.folder-not-found"
    assert "qwen" in error.fix


def test_a_method_without_quantization_is_a_contradiction(tmp_path):
    error = refused(quantui.prepare_model_for_vllm, tmp_path, False, method="bitsandbytes")
    assert error.code == "api.contradiction"


@pytest.mark.parametrize(
    ("keywords", "code"),
    [
        ({"method": "bitsandbyte"}, "method.unknown"),
        ({"merge_device": "cuda"}, "profile.bad-choice"),
        ({"max_model_len": 3}, "profile.out-of-range"),
        ({"max_model_len": "8k"}, "profile.wrong-type"),
        ({"recreate": "yes"}, "profile.wrong-type"),
        ({"engine_python": "/nowhere/python"}, "engine.python-missing"),
    ],
)
def test_bad_arguments_are_refused_by_name(tmp_path, keywords, code):
    model = write(tmp_path / "m", model_files())
    assert refused(quantui.prepare_model_for_vllm, model, **keywords).code == code


def test_the_name_it_is_served_under_does_not_make_another_merged_model(tmp_path):
    model = resolve_model(str(write(tmp_path / "m", model_files(num_attention_heads=2))))
    adapter = resolve_adapter(str(write(tmp_path / "a", adapter_files(base=str(tmp_path / "m")))))
    engine = EngineFacts("vllm-cpu", "/python", "profile", on_cpu=True, versions={})
    facts = Facts(
        model, (adapter,), probe_hardware(), engine, engine, "/artifacts", "/workers", 1, {}
    )
    plans = [
        build_plan(Draft(serve=ServeChoice(served_name=name)), facts, serve=False, force=True)
        for name in (None, "production")
    ]
    assert plans[0].steps == plans[1].steps
