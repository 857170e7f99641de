"""What a quantization made, in words; the record of a folder that was made elsewhere is a stranger's text."""

from __future__ import annotations

import math

import pytest

from quantui.domain.producing.verdict import judge
from quantui.domain.quantize_report import quantize_rows

RESULT = {
    "bytes": 3 << 30,
    "base_bytes": 12 << 30,
    "seconds": 3600.0,
    "device": "cuda:0",
    "phases": {"load": 60.0, "calibrate": 3500.0},
    "peak_rss_bytes": 20 << 30,
    "peak_gpu_bytes": 30 << 30,
    "recipe": {
        "method": "gptq", "producer": "gptqmodel", "writes": "gptq", "bits": 8, "group_size": -1,
        "symmetric": True,
    },
    "versions": {"GPTQModel": "7.6.0", "torch": "2.13.0"},
    "tensors": {"quantized": 200, "left": 1, "left_bytes": 1 << 20, "left_modules": list("abcdef")},
    "calibration": {"source": "chats.jsonl", "used": 100, "tokens": 51200, "empty": 0, "too_short": 3},
    "base": {"perplexity": 10.0},
    "proof": {"perplexity": 10.05, "tokens": 4096, "runtime": "vLLM 0.32.0 (GPU)", "agreement": 0.97},
}  # fmt: skip


def test_everything_that_is_known_is_told():
    told = dict(quantize_rows(RESULT))
    assert told["size"] == "3.00 GiB, 25% of the 16-bit model's 12.00 GiB"
    assert told["method"] == "gptq by gptqmodel 7.6.0, 8 bit, a scale a row, symmetric"
    assert told["took"].endswith("on cuda:0 (load 1 min 00 s, calibrate 58 min 20 s)")
    assert told["peak RAM"] == "20.00 GiB, 30.00 GiB of the GPU"
    assert told["perplexity"] == "10.05, the 16-bit model's 10: +0.50% (4,096 held-out tokens)"
    assert told["in 16 bit"] == "1 tensor, 1.0 MiB: a, b, c, d ...; 200 quantized"
    assert told["calibrated on"] == "100 samples, 51,200 tokens of chats.jsonl, 3 too short"


def test_a_runtime_that_is_not_vllm_comes_with_the_reason():
    told = dict(quantize_rows({**RESULT, "why_not_vllm": "no kernel."}))
    assert told["proven in"].endswith("; not in vLLM: no kernel.")


@pytest.mark.parametrize("stranger", [None, "x", [], {}, {"perplexity": "high"}, math.nan])
def test_what_is_not_of_its_type_is_left_out(stranger):
    assert quantize_rows(dict.fromkeys(RESULT, stranger)) == []


@pytest.mark.parametrize(
    ("perplexity", "finite", "max_loss", "passes"),
    [
        (20.0, True, None, True),
        (200.0, True, None, True),
        (200.1, True, None, False),
        (20.4, True, 0.02, True),
        (20.5, True, 0.02, False),
        (19.0, True, 0.0, True),
        (math.nan, True, None, False),
        (math.inf, True, None, False),
        (20.0, False, None, False),
        (None, True, 0.02, True),
    ],
)
def test_a_result_passes_when_it_is_finite_and_lost_no_more_than_it_may(
    perplexity, finite, max_loss, passes
):
    verdict = judge(perplexity, 20.0, finite=finite, max_loss=max_loss)
    assert (verdict.why == "") == passes


def test_without_the_bases_perplexity_only_what_is_not_finite_is_refused():
    assert judge(1e9, None, finite=True, max_loss=None).why == ""
    assert judge(1e9, None, finite=False, max_loss=None).why
