"""A person at a terminal, with a real engine: through the steps to an answer, and out again by every door."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures.live_processes import wait_for
from fixtures.wizard_desk import READY_S, SLOW_S, Desk, make_desk, start_soon, to_review

from quantui.runtime.profile_file import load_profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quantui.runtime.engines import Engine

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def desk(demo: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = make_desk(demo, engine, tmp_path_factory.mktemp("desk"))
    yield made
    made.leave()


@pytest.fixture(autouse=True)
def nothing_is_left(desk: Desk) -> Iterator[None]:
    """However a test ended, the next one begins with an empty desk."""
    yield
    desk.leave()
    assert desk.home.cleared(), desk.home.processes()


def test_from_the_adapter_to_an_answer_a_profile_and_its_replay(desk: Desk) -> None:
    terminal = desk.sit_down()
    to_review(terminal)
    start_soon(terminal)
    terminal.keys("Enter")
    terminal.wait_for("▸Run", "merge adapter into base")
    terminal.wait_for("▸Ready", "http://127.0.0.1:", within_s=READY_S)

    terminal.keys("Tell me a story.", "Enter")
    terminal.wait_for("you Tell me a story.", "Once upon a time", "tokens/s", within_s=SLOW_S)

    terminal.keys("Escape")
    terminal.wait_for("s save")
    terminal.keys("s")
    terminal.wait_for("Where to save the profile", "prod.toml")
    terminal.keys("Enter")
    terminal.wait_for("Saved prod.toml")

    terminal.keys("q")
    terminal.wait_for("stop it and quit; nothing is left running")
    terminal.keys("x")
    assert terminal.wait_for_exit(SLOW_S) == 0
    assert desk.home.cleared(), desk.home.processes()

    profile = desk.folder / "prod.toml"
    draft = load_profile(profile)
    assert draft.adapter.id == str(desk.folder / "adapter")
    assert (draft.quantization.method, draft.serve.enforce_eager) == ("none", True)
    ended = desk.home.run("--profile", profile, "--check-only", "--json")
    assert ended.exit_code == 0, ended.text
    assert [event["step"] for event in ended.of("step.reused")] == ["merge"]
    assert ended.of("server.answered")


def test_a_run_left_in_the_background_is_found_again_and_stopped(desk: Desk) -> None:
    """At 80x24 without colours, the window pulled about meanwhile."""
    terminal = desk.sit_down(NO_COLOR="1")
    to_review(terminal)
    start_soon(terminal)
    terminal.keys("Enter")
    terminal.wait_for("▸Run", "▸ serve with vLLM", within_s=SLOW_S)
    terminal.resize(120, 40)
    terminal.wait_for("▸ Run", "· Ready", "serve with vLLM")
    terminal.resize(60, 15)
    terminal.wait_for("▸Run › Ready", "serve with vLLM", "esc back")
    terminal.resize(80, 24)
    terminal.wait_for("▸Run › Ready", "serve with vLLM", "h history")
    terminal.keys("q")
    terminal.wait_for("keep it running in the background, and quit")
    terminal.keys("k")
    assert terminal.wait_for_exit(SLOW_S) == 0
    assert desk.home.processes() != {}

    terminal = desk.sit_down(NO_COLOR="1")
    terminal.wait_for("a run lives in the background")
    terminal.keys("b")
    terminal.wait_for("serve with vLLM", "go to it")
    terminal.keys("Enter")
    terminal.wait_for("▸Run", "serve with vLLM", within_s=SLOW_S)
    terminal.keys("x")
    terminal.wait_for("Stop the run?")
    terminal.keys("x")
    terminal.wait_for("Cancelled", "no process left", within_s=SLOW_S)
    terminal.keys("q")
    terminal.wait_for_exit(SLOW_S)
    assert desk.home.cleared(), desk.home.processes()


def test_a_terminal_that_is_closed_takes_the_run_with_it(desk: Desk) -> None:
    terminal = desk.sit_down()
    to_review(terminal)
    terminal.keys("Enter")
    terminal.wait_for("▸Run", "▸ serve with vLLM", within_s=SLOW_S)
    wait_for(lambda: any("vllm" in command for command in desk.home.processes().values()))
    terminal.close()
    assert desk.home.cleared(), desk.home.processes()
