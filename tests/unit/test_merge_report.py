"""What a merge did, in words: what is known is told, what is not is left out."""

from __future__ import annotations

import pytest

from quantui.domain.merge_report import merge_rows

RESULT = {
    "bytes": 3 * 2**30,
    "method": "streamed",
    "why_peft": None,
    "tensors_changed": 196,
    "tensors_untouched": 142,
    "adapter_tensors": 392,
    "proof": {"sampled_rows": 1568, "correctly_rounded": 0.999999, "max_ulp": 0.5},
    "seconds": 6.0,
    "peak_rss_bytes": 250 * 2**20,
    "device": "cpu",
}
NORMS = {
    "a.q_proj.weight": 1.0,
    "b.q_proj.weight": 3.0,
    "c.weight": 2.0,
    "lm_head.weight": 0.123456,
}


def rows(result=RESULT, norms=NORMS, **changes):
    return dict(merge_rows({**result, **changes}, norms))


def test_a_merge_is_told_with_its_proof():
    assert merge_rows(RESULT, NORMS) == [
        ("merged", "196 tensors changed, 142 untouched, all 392 of the adapter used"),
        (
            "proof",
            "1568 rows computed again in float64: off by at most 0.50 units in the last place",
        ),
        ("", "99.9999 % of their values correctly rounded"),
        ("largest change", "b.q_proj 3, c 2, a.q_proj 1"),
        ("method", "streamed"),
        ("took", "6.0 s, 512 MiB/s, on cpu"),
        ("peak RSS", "0.24 GiB, libraries included"),
    ]


def test_a_hundred_percent_is_said_of_all_only():
    def share(value):
        return rows(proof={"sampled_rows": 8, "correctly_rounded": value})[""]

    assert "100 % of" in share(1.0)
    assert "99.9999 % of" in share(1 - 1e-9)


def test_how_often_a_float32_is_the_nearest_is_not_told():
    proof = {"sampled_rows": 8, "correctly_rounded": 0.64, "max_ulp": 1.79}
    assert rows(proof=proof | {"dtype": "float32"})["proof"].endswith(
        "1.79 units in the last place"
    )
    assert "" not in rows(proof=proof | {"dtype": "float32"})
    assert "64 %" in rows(proof=proof | {"dtype": "bfloat16"})[""]


def test_a_merge_that_went_on_has_no_rate():
    assert rows(resumed_shards=0)["took"] == "6.0 s, 512 MiB/s, on cpu"
    assert rows(resumed_shards=3)["took"] == "6.0 s, 3 files were there from an earlier try, on cpu"
    assert rows(resumed_shards=1)["took"].startswith("6.0 s, 1 file was there")


def test_why_peft_merged_it_is_told():
    assert rows(method="peft", why_peft="bdlora")["method"] == "through PEFT: bdlora"
    assert rows(method="peft", why_peft=None)["method"] == "through PEFT"


def test_tensors_that_could_not_be_checked_are_told():
    told = merge_rows({"proof": {"sampled_rows": 8, "not_sampled": ["x", "y"]}}, {})
    assert told[-1] == ("", "2 tensors could not be computed again")


def test_answers_that_were_compared_are_told():
    answers = {"kl_merged": 1.234e-6, "kl_base": 0.5, "passed": True}
    told = rows(proof={"logits": answers})["answers"]
    assert "1.2e-06 nats" in told
    assert "5.0e-01" in told


def test_what_is_not_known_is_left_out():
    assert merge_rows({}, {}) == []
    assert merge_rows({"proof": "no table"}, {}) == []
    assert merge_rows({"seconds": 0, "bytes": 1}, {}) == []
    assert "took" not in rows(seconds=None)


@pytest.mark.parametrize("nonsense", ["text", True, [1], {"a": 1}, float("nan"), None])
def test_a_proof_that_a_stranger_wrote_breaks_nothing(nonsense):
    assert merge_rows(dict.fromkeys(RESULT, nonsense), {})[:1] in (
        [],
        [("method", "text")],
    )
    assert merge_rows({"proof": dict.fromkeys(("sampled_rows", "not_sampled"), nonsense)}, {}) in (
        [],
        [("", "1 tensors could not be computed again")],
    )
    assert merge_rows({"proof": {"logits": {"kl_merged": nonsense, "kl_base": 1}}}, {}) == []
