"""What vLLM does with memory is known by version, each change with its source."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest

from quantui.domain.fitting.vllm_versions import behaviour
from quantui.domain.versions import CURRENT_VLLM, version_numbers

CHANGES = tomllib.loads(
    resources.files("quantui.data").joinpath("vllm_versions.toml").read_text(encoding="utf-8")
)["change"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change["version"])
def test_every_change_has_a_source_that_names_a_file_or_a_version(change):
    assert "vllm" in change["source"]
    assert set(change) - {"version", "source"}


def test_changes_are_in_order():
    numbers = [version_numbers(change["version"]) for change in CHANGES]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.8.5.post1", (0, 8, 5)),
        ("v0.11.0", (0, 11, 0)),
        ("0.7.x", (0, 7)),
        ("0.6.4.post1+dev", (0, 6, 4)),
        ("0.32.0rc1", (0, 32, 0)),
        ("unknown", tuple(map(int, CURRENT_VLLM.split(".")))),
    ],
)
def test_versions_are_read_as_people_and_packages_write_them(text, numbers):
    assert version_numbers(text) == numbers


@pytest.mark.parametrize(
    ("version", "field", "value"),
    [
        ("0.7.3", "engine", "v0"),
        ("0.8.0", "engine", "v1"),
        ("0.19.1", "utilization", 0.90),
        ("0.20.0", "utilization", 0.92),
        ("0.19.1", "graphs_in_budget", False),
        ("0.20.0", "graphs_in_budget", True),
        ("0.16", "sampler", "sort"),
        ("0.17", "sampler", "fused"),
        ("0.24", "sampler", "fused"),
        ("0.25", "sampler", "counting"),
        ("0.25", "sampler_moe", "fused"),
        ("0.29", "sampler_moe", "counting"),
        ("0.8.5", "checks_free_memory", False),
        ("0.9.2", "checks_free_memory", True),
        ("0.31", "null_block", True),
        ("1.0", "utilization", 0.92),
    ],
)
def test_what_holds_in_a_version(version, field, value):
    assert getattr(behaviour(version), field) == value


def test_versions_from_0_8_to_0_10_fall_back_to_v0_on_old_cards_and_for_pipelines():
    assert behaviour("0.9.2", (7, 5)).engine == "v0"
    assert behaviour("0.9.2", (8, 0), 2).engine == "v0"
    assert behaviour("0.9.2", (8, 0)).engine == "v1"
    assert behaviour("0.11.0", (7, 5)).engine == "v1"
    assert not behaviour("0.9.2", (7, 5)).hybrid_groups


def test_the_sources_of_a_version_are_those_of_the_changes_up_to_it():
    assert behaviour("0.8.5").sources == tuple(
        f"{change['version']}: {change['source']}"
        for change in CHANGES
        if version_numbers(change["version"]) <= (0, 8, 5)
    )
