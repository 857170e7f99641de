"""What a format is expected to lose, and whose figures that rests on."""

from __future__ import annotations

from typing import Any

import pytest

from quantui.domain.methods import method, methods
from quantui.domain.performance.evidence import Evidence, published, read_evidence
from quantui.domain.performance.quality import Quality, expected_quality

SIZES = (0.5e9, 1.5e9, 8e9, 32e9, 70e9)


def lost(name: str, parameters: float | None, evidence: Evidence | None = None) -> float:
    quality = expected_quality(method(name), parameters, evidence)
    assert quality.loss_percent is not None
    return quality.loss_percent


def evidence(*models: dict[str, Any], source: str = "a") -> Evidence:
    return read_evidence(
        {
            "source": {
                "a": {"who": "A", "url": "", "date": "2026"},
                "b": {"who": "B", "url": "", "date": "2026"},
            },
            "loss_curve": {
                "four": {"weight_bits": [0, 5], "reference": ["awq", "gptq"], "prior": 0.5}
            },
            "quality": [{"source": source, "metric": "tasks", "models": list(models)}],
        }
    )


def model(billions: float, **scores: float) -> dict[str, Any]:
    return {"model": f"M{billions}", "billions": billions, "base": 100.0, **scores}


def test_sixteen_bit_is_the_reference() -> None:
    quality = expected_quality(method("none"), 8e9)
    assert quality.loss_percent == 0
    assert quality.basis == "reference"


def test_a_quantized_checkpoint_served_as_it_is_loses_nothing_more() -> None:
    quality = expected_quality(method("none"), 8e9, stored_as="awq")
    assert quality.loss_percent is None
    assert quality.basis == "stored"


def test_what_nobody_measured_is_unknown() -> None:
    for name in ("gguf", "w4a8", "mxfp8", "bitsandbytes_8bit"):
        quality = expected_quality(method(name), 8e9)
        assert quality == Quality(
            None, None, "unknown", "no published score was found", claims=quality.claims
        )


@pytest.mark.parametrize("name", ["awq", "gptq", "w4a16", "bitsandbytes", "fp8_dynamic"])
def test_small_models_lose_more(name: str) -> None:
    losses = [lost(name, size) for size in SIZES]
    assert losses[0] > losses[1] > losses[2] > losses[-1]


def test_four_bit_loses_about_a_percent_or_two_from_8_billion_parameters_on() -> None:
    for name in ("awq", "gptq", "autoround", "w4a16", "bitsandbytes"):
        assert 0.5 < lost(name, 32e9) < lost(name, 8e9) < 3


def test_eight_bit_loses_less_than_a_percent_from_8_billion_parameters_on() -> None:
    for name in ("fp8_dynamic", "fp8_static", "fp8_block", "int8_w8a8"):
        assert lost(name, 8e9) < 1
        assert lost(name, 32e9) < 0.5


@pytest.mark.parametrize("size", SIZES)
def test_more_bits_lose_less(size: float) -> None:
    assert lost("fp8_dynamic", size) < lost("autoround", size)
    assert lost("autoround", size) <= lost("awq", size) <= lost("w4a16", size)
    assert lost("w4a16", size) < lost("mxfp4", size)


def test_three_bits_lose_several_times_what_four_bits_lose() -> None:
    points = {point.model: point for point in published().qualities if "3 bit" in point.metric}
    four = {
        point.model: point
        for point in published().qualities
        if "4 bit, groups of 128" in point.metric
    }
    for name, point in points.items():
        assert point.loss_percent("three_bit_awq") > 2 * four[name].loss_percent("awq")


@pytest.mark.parametrize("name", [name for name in methods() if name != "none"])
def test_every_estimate_has_a_band_a_source_and_its_arithmetic(name: str) -> None:
    for size in (None, *SIZES, 1e12):
        quality = expected_quality(method(name), size)
        if quality.loss_percent is None:
            continue
        assert quality.band is not None
        assert quality.band[0] <= quality.loss_percent <= quality.band[1]
        assert quality.source
        assert f"{quality.loss_percent:.2f} %" in quality.formula


def test_the_published_losses_of_a_size_lie_in_its_band() -> None:
    for point in published().qualities:
        for name in set(point.scores) & set(methods()):
            band = expected_quality(method(name), point.parameters).band
            assert band is not None
            assert band[0] - 0.01 <= point.loss_percent(name) <= band[1] + 0.01


def test_between_measured_sizes_the_loss_falls_with_the_size() -> None:
    known = evidence(model(1, awq=92, gptq=92), model(64, awq=99, gptq=99))
    losses = [lost("awq", size * 1e9, known) for size in (1, 8, 64)]
    assert losses[0] == pytest.approx(8, rel=0.15)
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(1, rel=0.4)


def test_a_method_is_held_against_the_usual_formats_on_the_same_tasks() -> None:
    # On easy tasks AutoRound loses 0.5 where the usual formats lose 1; on hard ones they lose 4. The prior is 0.5.
    easy, hard = model(8, awq=99, gptq=99, autoround=99.5), model(8, awq=96, gptq=96)
    assert lost("autoround", 8e9, evidence(easy, hard)) == pytest.approx(2.5 * 1.0 / 1.5, rel=0.01)


def test_a_size_far_from_every_measured_one_is_said_to_be() -> None:
    known = evidence(model(8, awq=98, gptq=98))
    near, far = (expected_quality(method("awq"), size, known) for size in (8e9, 0.5e9))
    assert "no model near this size" in far.note
    assert "no model near this size" not in near.note
    assert near.band is not None
    assert far.band is not None
    assert far.band[1] - far.band[0] > near.band[1] - near.band[0]


def test_methods_that_round_alike_stand_in_for_each_other_and_it_is_said() -> None:
    quality = expected_quality(method("fp8_per_tensor"), 8e9)
    assert quality.loss_percent == lost("fp8_dynamic", 8e9)
    assert "fp8_dynamic" in quality.note


def test_a_single_source_is_said_to_be_one() -> None:
    assert "one source only" in expected_quality(method("bitsandbytes"), 8e9).note
    assert "one source only" not in expected_quality(method("awq"), 8e9).note


def test_claims_are_given_with_their_authors() -> None:
    claims = expected_quality(method("squeezellm"), 70e9).claims
    assert len(claims) == 1
    assert claims[0].startswith("the guides")


def test_the_curve_ends_where_nothing_smaller_was_measured():
    tiny, half = (expected_quality(method("awq"), size) for size in (4e6, 494_032_768))
    assert tiny.loss_percent is not None
    assert half.loss_percent is not None
    assert tiny.loss_percent <= 1.2 * half.loss_percent
    assert "no model near this size was measured" in tiny.note
