"""``quantui demo``: what a newcomer sees, and the profile it leaves.

The model is the tests' own, put where the command would have made it; making it is specified in
``test_demo_model``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - read at run time by dataclasses
from typing import TYPE_CHECKING

import pytest
from fixtures.quantui_command import Ended, Home

from quantui.domain.profile import parse_profile
from quantui.runtime.demo import demo_folder

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Shown:
    """The demo's end, its home, and the profile it wrote."""

    ended: Ended
    home: Home
    profile: Path
    engine_python: str


@pytest.fixture(scope="module")
def shown(demo: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo-command")
    home = Home(folder / "home")
    shutil.copytree(demo, home.path / "demo" / demo_folder().name)
    profile = folder / "demo.toml"
    ended = home.run("demo", "--python", engine.python, "--out", profile)
    return Shown(ended, home, profile, engine.python)


def test_it_ends_well(shown: Shown) -> None:
    assert shown.ended.exit_code == 0, shown.ended.err


def test_a_model_that_was_made_before_is_reused(shown: Shown) -> None:
    assert "made before, reused" in shown.ended.err


def test_base_and_merged_are_shown_beside_each_other(shown: Shown) -> None:
    lines = {line.split()[0]: line for line in shown.ended.out.splitlines() if line.strip()}
    assert "Once upon a time" in lines["merged"]
    assert "Once upon a time" not in lines["base"]


def test_memory_and_speed_are_told_with_their_sources(shown: Shown) -> None:
    assert "tokens/s  [one streamed request]" in shown.ended.err
    assert "RAM of vLLM" in shown.ended.err


def test_the_profile_records_what_was_predicted_and_measured(shown: Shown) -> None:
    recorded = parse_profile(shown.profile.read_text()).recorded
    assert recorded.expected_weight_bytes
    assert recorded.kv_cache_tokens
    assert recorded.load_seconds
    assert recorded.vllm_version


def test_replaying_the_profile_would_merge_nothing_and_nothing_differs(shown: Shown) -> None:
    checked = shown.home.run("--profile", shown.profile, "--check")
    assert checked.exit_code == 0
    assert "made before: reused" in checked.text
    assert "differs nothing" in checked.text
