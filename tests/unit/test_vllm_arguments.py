"""Arguments checked against the flags a vLLM has; the flags are copies of vLLM 0.32's."""

from __future__ import annotations

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.engines.capabilities import Capabilities, Flag, Method, as_command_line


def flag(
    *options, action="_StoreAction", type_name="str", optional=False, choices=None, nargs=None
):
    return Flag(options, action, type_name, optional, choices, nargs, None)


VLLM = Capabilities(
    vllm="0.32.0",
    torch="2.13.0+cpu",
    platform="CpuPlatform",
    device="cpu",
    device_capability=None,
    plugins=("bitsandbytes",),
    methods=(
        Method("awq", "vllm.AutoAWQConfig", 75, ("float16", "bfloat16")),
        Method("bitsandbytes", "plugin.BitsAndBytesConfig", 70, ("bfloat16",)),
    ),
    flags=(
        flag("--model"),
        flag("--port", type_name="int"),
        flag("--max-model-len", type_name="human_readable_int_or_auto"),
        flag("--gpu-memory-utilization", type_name="float"),
        flag("--dtype", choices=("auto", "bfloat16", "float16")),
        flag("--seed", type_name="int", optional=True),
        flag("--quantization", "-q", optional=True),
        flag("--enforce-eager", "--no-enforce-eager", action="BooleanOptionalAction", nargs=0),
        flag("--headless", action="_StoreTrueAction", nargs=0),
        flag("--served-model-name", nargs="+", optional=True),
        flag("--limit-mm-per-prompt", type_name="loads"),
    ),
    problems=(),
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["some/model", "--port", "8000", "--enforce-eager"],
        ["--port=8000"],
        ["--max_model_len", "32k"],
        ["--max-model-len", "auto"],
        ["--max-model-len", "-1"],
        ["--seed", "None"],
        ["--no-enforce-eager"],
        ["-q", "awq"],
        ["--served-model-name", "a", "b"],
        ["--limit-mm-per-prompt.image", "2"],
        {"max-model-len": 4096, "enforce_eager": True, "gpu_memory_utilization": 0.9},
        {"enforce-eager": False, "seed": None, "--served-model-name": ["a", "b"]},
    ],
)
def test_arguments_that_vllm_takes_pass(arguments):
    VLLM.check_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--max-modle-len", "1"], "vllm.unknown-flag", "Did you mean --max-model-len?"),
        ({"gpu_memory_utilisation": 0.9}, "vllm.unknown-flag", "--gpu-memory-utilization?"),
        (["--no-headless"], "vllm.unknown-flag", "--headless"),
        (["--dtype", "bfloat61"], "vllm.bad-value", "Did you mean 'bfloat16'?"),
        (["--port", "http"], "vllm.bad-value", "a whole number"),
        (["--gpu-memory-utilization", "most"], "vllm.bad-value", "a number"),
        (["--max-model-len", "long"], "vllm.bad-value", "32k"),
        (["--port"], "vllm.bad-value", "needs a value"),
        (["--port", "--headless"], "vllm.bad-value", "needs a value"),
        ({"quantization": "bitsandbyte"}, "vllm.unknown-method", "Did you mean 'bitsandbytes'?"),
    ],
)
def test_an_argument_vllm_would_refuse_is_named_with_what_would_do(arguments, code, words):
    with pytest.raises(QuantuiError) as caught:
        VLLM.check_arguments(arguments)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_method_the_engine_lacks_does_not_fit_rather_than_being_bad_input():
    with pytest.raises(QuantuiError) as caught:
        VLLM.check_arguments(["--quantization", "gguf"])
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT


def test_supports_method_knows_the_registered_ones():
    assert VLLM.supports_method("awq")
    assert not VLLM.supports_method("gguf")
    assert VLLM.method("awq").min_capability == 75


def test_capabilities_survive_json():
    import json

    assert Capabilities.from_dict(json.loads(json.dumps(VLLM.to_dict()))) == VLLM


def test_a_mapping_becomes_a_command_line():
    mapping = {"max_model_len": 1, "enforce-eager": False, "-q": "awq", "seed": None, "x": True}
    expected = ["--max-model-len", "1", "--no-enforce-eager", "-q", "awq", "--x"]
    assert as_command_line(mapping) == expected
