"""Quantities as people type them."""

from __future__ import annotations

import pytest

from quantui.domain import quantities
from quantui.domain.errors import ExitCode, QuantuiError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1", 1),
        ("8192", 8192),
        (" 8192 ", 8192),
        ("8k", 8000),
        ("8K", 8192),
        ("25.6k", 25_600),
        ("1m", 1_000_000),
        ("1M", 1_048_576),
        ("100_000", 100_000),
    ],
)
def test_tokens_have_the_suffixes_of_vllm(text, tokens):
    assert quantities.tokens("--context", text) == tokens


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "0k", "8kb", "8 k", "k", "1.5", "1e3", "nan", "inf", "0x10", "٣", "9" * 400,
     "1_0", "0.0001k", "99999M", "8k\n8k"],
)  # fmt: skip
def test_what_is_no_number_of_tokens_is_refused_by_the_options_name(text):
    with pytest.raises(QuantuiError) as caught:
        quantities.tokens("--context", text)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert caught.value.what.startswith("--context does not take ")
    assert "--context 8192" in caught.value.fix


@pytest.mark.parametrize("text", ["0.9", "1", "1.0", ".5"])
def test_a_part_of_the_memory_is_above_0_and_at_most_1(text):
    assert quantities.fraction("--utilization", text) == float(text)


@pytest.mark.parametrize("text", ["0", "-0.5", "1.01", "90", "nan", "inf", "90%", ""])
def test_other_parts_are_refused(text):
    with pytest.raises(QuantuiError, match="--utilization does not take"):
        quantities.fraction("--utilization", text)


def test_a_count_has_bounds_of_its_own():
    assert quantities.count("--tp", "8", "GPUs", most=8) == 8
    assert quantities.count("--max-loras", "0", "adapters", least=0) == 0
    for text in ("0", "9", "-1", "2.0", "two"):
        with pytest.raises(QuantuiError, match="--tp does not take"):
            quantities.count("--tp", text, "GPUs", most=8)


def test_gpus_keep_their_order():
    assert quantities.gpu_indices("--gpus", "2, 0") == (2, 0)


def test_no_gpu_is_the_cpu():
    assert quantities.gpu_indices("--gpus", "none") == ()


def test_a_choice_may_have_other_names_and_a_wrong_one_is_told_the_nearest():
    known = {"float16": "float16", "fp16": "float16"}
    assert quantities.choice("--dtype", "FP16", known) == "float16"
    with pytest.raises(QuantuiError, match="--dtype does not take 'flaot16'") as caught:
        quantities.choice("--dtype", "flaot16", known)
    assert "Did you mean float16?" in caught.value.fix


@pytest.mark.parametrize("text", ["", ",", "0,", "a", "-1", "0,0", "0;1", "GPU-1"])
def test_what_names_no_gpus_is_refused(text):
    with pytest.raises(QuantuiError, match="--gpus does not take"):
        quantities.gpu_indices("--gpus", text)


@pytest.mark.parametrize(
    ("text", "version"),
    [("0.32", "0.32"), ("v0.32.1", "0.32.1"), ("0.33.0rc1", "0.33.0rc1"), ("0.9.0.1", "0.9.0.1"),
     ("0.7.x", "0.7"), ("0.6.4.post2.dev12+g1a2b3c", "0.6.4.post2.dev12"), ("0.2.5+dev", "0.2.5"),
     ("0.7.0 (V1)", None), ("latest", None), ("32", None), ("", None), ("0.32; rm", None)],
)  # fmt: skip
def test_versions_of_vllm(text, version):
    if version is not None:
        assert quantities.version("--vllm-version", text) == version
        return
    with pytest.raises(QuantuiError, match="--vllm-version does not take"):
        quantities.version("--vllm-version", text)
