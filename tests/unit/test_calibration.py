"""Earlier loads correct the next estimate, and one odd load cannot hide that something does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantui.domain.fitting.calibration import (
    LAST_RUNS,
    Expectation,
    Figures,
    Load,
    Observation,
    calibration_for,
    machine_key,
    own_runs,
    rest_residual,
    weight_residual,
)
from quantui.domain.hardware import Gpu, HardwareReport, Host
from quantui.domain.units import GIB

LOAD = Load("1x card", "vllm-cuda", "0.32.0", "bitsandbytes", "content")


def seen(residual_gib=0.0, *, at=1.0, load=LOAD, weights_gib=0.0, outcome="ok", **changes):
    """A load on a card of 80 GiB, of which 10 were predicted for weights and 4 for the rest."""
    measured = Figures(
        weights=int((10 + weights_gib) * GIB),
        kv_cache=int((56 - weights_gib - residual_gib) * GIB),
    )
    found = {"measured": measured, "tokens_per_s": None}
    found |= {key: changes.pop(key) for key in found if key in changes}
    expected = {
        "load": load,
        "predicted": Figures(weights=10 * GIB, kv_cache=56 * GIB, rest=4 * GIB),
        "on_cpu": False,
        "kv_cache_given": False,
        "device_bytes": 80 * GIB,
    }
    return Observation(at, Expectation(**{**expected, **changes}), outcome, **found)


def runs(*residuals, **changes):
    return [
        seen(residual, at=float(number), **changes) for number, residual in enumerate(residuals)
    ]


def corrected(observations, load=LOAD):
    found = calibration_for(load, observations)
    return None if found is None else found.residual_bytes / GIB


# What one load tells


def test_what_the_cache_lacks_was_taken_by_the_rest():
    assert rest_residual(seen(1.5)) == 1.5 * GIB


def test_what_the_weights_took_is_no_part_of_it():
    one = seen(1.5, weights_gib=2)
    assert (rest_residual(one), weight_residual(one)) == (1.5 * GIB, 2 * GIB)


def test_on_the_cpu_it_is_what_the_processes_hold_beside_weights_and_cache():
    predicted = Figures(weights=2 * GIB, kv_cache=4 * GIB, rest=GIB)
    one = seen(on_cpu=True, predicted=predicted, measured=Figures(peak=int(7.5 * GIB)))
    assert rest_residual(one) == 0.5 * GIB
    assert rest_residual(replace(one, measured=Figures())) is None


def test_with_a_cache_of_a_given_size_too():
    measured = Figures(weights=10 * GIB, peak=20 * GIB)
    predicted = Figures(weights=10 * GIB, kv_cache=4 * GIB, rest=5 * GIB)
    one = seen(kv_cache_given=True, predicted=predicted, measured=measured)
    assert rest_residual(one) == GIB


def test_a_load_that_ran_out_of_memory_needed_all_that_the_cache_was_to_have():
    one = seen(outcome="out-of-memory", measured=Figures())
    assert rest_residual(one) == 56 * GIB


def test_one_that_told_what_was_left_before_it_failed_is_taken_at_its_word():
    measured = Figures(weights=10 * GIB, kv_cache=-GIB)
    assert rest_residual(seen(outcome="out-of-memory", measured=measured)) == 57 * GIB


def test_a_log_without_figures_tells_nothing():
    assert rest_residual(seen(measured=Figures())) is None
    assert rest_residual(seen(predicted=Figures(weights=1))) is None


# What several tell


def test_before_any_load_nothing_is_corrected():
    assert calibration_for(LOAD, []) is None
    assert calibration_for(LOAD, [seen(measured=Figures())]) is None


def test_more_than_predicted_counts_from_the_first_load():
    assert corrected(runs(2.0)) == 2.0


def test_less_than_predicted_counts_the_more_the_more_loads_say_so():
    assert corrected(runs(-1.0)) == -0.5
    assert corrected(runs(*[-1.0] * 3)) == -0.75


def test_the_median_outvotes_an_odd_load():
    assert corrected(runs(1.0, 30.0, 1.1)) == pytest.approx(1.1)
    assert corrected(runs(1.0, -30.0, 1.1)) == pytest.approx(1.0)


def test_only_the_last_loads_count():
    assert corrected(runs(*[9.0] * 20, *[1.0] * LAST_RUNS)) == 1.0


def test_a_single_odd_load_takes_no_more_than_a_quarter_of_the_card():
    assert corrected(runs(60.0)) == 20.0


def test_at_least_half_of_the_predicted_rest_is_kept():
    assert corrected(runs(*[-50.0] * 50)) == -2.0


def test_the_same_model_comes_before_others():
    other = replace(LOAD, model="another")
    observations = [*runs(*[5.0] * 9, load=other), seen(1.0, at=99)]
    assert corrected(observations) == 1.0


def test_what_other_models_say_counts_less():
    other = replace(LOAD, model="another")
    assert corrected(runs(1.0, load=other)) == 0.5
    assert corrected(runs(1.0, 1.0, 1.0, load=replace(LOAD, method="none"))) == 0.75


@pytest.mark.parametrize("field", ["machine", "engine", "vllm_version"])
def test_another_machine_engine_or_version_says_nothing(field):
    assert corrected(runs(1.0, load=replace(LOAD, **{field: "another"}))) is None


def test_a_patch_release_says_the_same_and_a_minor_one_does_not():
    assert corrected(runs(1.0, load=replace(LOAD, vllm_version="0.32.4+cpu"))) == 1.0
    assert corrected(runs(1.0, load=replace(LOAD, vllm_version="0.31.0"))) is None


def test_what_the_weights_took_counts_for_the_very_model_alone():
    observations = [seen(1.0, weights_gib=2)]
    assert corrected(observations) == 3.0
    assert corrected(observations, replace(LOAD, model="another")) == 0.5


def test_it_says_where_it_is_from():
    found = calibration_for(LOAD, runs(1.0, 1.5, 2.0))
    assert found is not None
    assert found.source == (
        "+1.50 GiB measured in 3 loads of this model on this machine with vLLM 0.32.0"
    )
    assert found.spread_bytes == GIB


# Speeds


def test_speeds_are_of_this_model_on_this_machine_newest_first():
    observations = [
        seen(at=0, tokens_per_s=10.0),
        seen(at=86400, tokens_per_s=30.0, load=replace(LOAD, method="none")),
        seen(at=2, tokens_per_s=None),
        seen(at=3, tokens_per_s=9.0, load=replace(LOAD, machine="another")),
        seen(at=4, tokens_per_s=8.0, load=replace(LOAD, model="another")),
    ]
    found = own_runs(LOAD, observations)
    assert [(run.tokens_per_s, run.method, run.when) for run in found] == [
        (30.0, "none", "1970-01-02"),
        (10.0, "bitsandbytes", "1970-01-01"),
    ]
    assert {(run.users, run.hardware, run.tensor_parallel) for run in found} == {(1, "1x card", 1)}


# Machines


def test_a_machine_is_its_cards_or_else_its_cpu_and_ram():
    host = Host(cpu_name="cpu", usable_cores=4, ram_total_bytes=32 * GIB + 12345)
    cards = (Gpu(0, name="big", total_bytes=2), Gpu(1, name="small", total_bytes=1))
    report = HardwareReport(gpus=cards, host=host, driver_version="580")
    assert machine_key(report, cards[:1]) == "1x big 2 B cc ?; driver 580"
    assert machine_key(report, cards[1:]) != machine_key(report, cards[:1])
    twins = (cards[0], replace(cards[0], index=2))
    assert machine_key(report, twins) == machine_key(report, cards[:1])
    assert machine_key(report) == "CPU cpu, 4 cores, 32 GiB"
    assert machine_key(HardwareReport()) == "CPU ?, ? cores, ?"
