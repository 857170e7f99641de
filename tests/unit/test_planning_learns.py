"""A plan is corrected by what earlier loads took, and expects of its own load what the formulas say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.test_planning import CPU, CUDA, facts, gpu, plan

from quantui.domain.draft import ServeChoice
from quantui.domain.fitting.calibration import Figures, Observation
from quantui.domain.units import GIB

GPU = (gpu(0),)


def loaded(the_plan, *, rest_gib=0.0, weights_gib=0.0, at=1.0, outcome="ok"):
    """What is seen when weights and the rest take so much more than the formulas say."""
    expected = the_plan.expectation
    was = expected.predicted
    measured = Figures(
        weights=was.weights + int(weights_gib * GIB),
        kv_cache=was.kv_cache - int((rest_gib + weights_gib) * GIB),
    )
    return Observation(at, expected, outcome, measured)


def after(*observations, **sections):
    return plan(facts(CUDA, GPU, observations=observations), **sections)


def test_before_any_load_the_formulas_stand():
    first = after()
    assert first.expectation.load.machine.startswith("1x ")
    assert first.expectation.predicted.weights == first.estimate.weight_bytes
    assert first.expectation.gpus == (0,)


def test_the_next_plan_has_the_room_that_the_load_had():
    first = after()
    second = after(loaded(first, rest_gib=1.0, weights_gib=0.5))
    assert first.estimate.kv_cache_bytes - second.estimate.kv_cache_bytes == pytest.approx(
        1.5 * GIB, rel=0.001
    )
    assert "measured in 1 load of this model" in second.estimate.sources["overhead"]


def test_a_correction_is_not_taken_for_a_prediction():
    first = after()
    second = after(loaded(first, rest_gib=1.0))
    assert second.expectation.predicted.rest == first.expectation.predicted.rest
    third = after(loaded(first, rest_gib=1.0), loaded(second, rest_gib=1.0, at=2.0))
    assert third.estimate.kv_cache_bytes == second.estimate.kv_cache_bytes


def test_what_another_tensor_parallel_size_took_counts_less():
    first = after()
    other = replace(first.expectation, load=replace(first.expectation.load, tensor_parallel=2))
    seen = replace(loaded(first, rest_gib=1.0), expected=other)
    assert first.estimate.kv_cache_bytes - after(seen).estimate.kv_cache_bytes == pytest.approx(
        0.5 * GIB, rel=0.001
    )


def test_a_model_that_ran_out_of_memory_is_not_planned_in_the_same_way_again():
    nearly_full = (gpu(0, free=2.0, total=24.0),)
    first = plan(facts(CUDA, nearly_full))
    failed = Observation(1.0, first.expectation, "out-of-memory", Figures())
    second = plan(facts(CUDA, nearly_full, observations=(failed,)))
    assert (first.estimate.fit.verdict, second.estimate.fit.verdict) == ("fits", "tight")
    assert second.estimate.kv_cache_bytes == 0
    assert any("memory is tight" in notice for notice in second.notices)


def test_on_the_cpu_the_ram_of_the_processes_counts():
    first = plan(facts(CPU))
    expected = first.expectation
    assert (expected.on_cpu, expected.kv_cache_given, expected.gpus) == (True, True, ())
    assert expected.load.machine.startswith("CPU ")
    seen = Observation(1.0, expected, "ok", Figures(peak=first.estimate.total_bytes + GIB // 4))
    second = plan(facts(CPU, observations=(seen,)))
    assert second.estimate.total_bytes == pytest.approx(
        first.estimate.total_bytes + GIB // 4, abs=4096
    )


def test_what_is_only_prepared_expects_nothing():
    assert plan(facts(CPU), preparing=True).expectation is None


def test_a_cache_of_a_given_size_is_known_from_serves_own_and_from_further_arguments():
    for given in ({"kv_cache_gib": 2.0}, {"extra_args": {"kv-cache-memory-bytes": 2 * GIB}}):
        assert after(serve=ServeChoice(**given)).expectation.kv_cache_given
    assert not after().expectation.kv_cache_given
