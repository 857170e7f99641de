"""What cannot be merged rightly is refused before a byte is written, or leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures.zoo.refusals import REFUSED

if TYPE_CHECKING:
    from fixtures.merged_zoo import MergedZoo

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

FOUND_WHILE_WRITING = {"overflows-float16"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_rightly_is_refused(zoo: MergedZoo, name: str) -> None:
    error = zoo.run(name).error
    assert error["code"] == REFUSED[name].code, error
    assert error["exit_code"] == 2
    assert error["what"]
    assert error["why"]
    assert error["fix"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_merge_leaves_nothing(zoo: MergedZoo, name: str) -> None:
    out = zoo.out(name)
    assert not out.exists()
    assert not out.with_name(out.name + ".partial").exists()
    if name not in FOUND_WHILE_WRITING:
        written = [e for e in zoo.run(name).events if e["type"] == "progress"]
        assert written == []


def test_an_overflow_is_found_while_it_is_computed(zoo: MergedZoo) -> None:
    run = zoo.run("overflows-float16")
    assert "merge" in run.phases()
    assert "float16" in run.error["what"] + run.error["why"]


def test_the_error_names_the_tensors_that_have_no_place(zoo: MergedZoo) -> None:
    assert any("unheard_of" in line for line in zoo.run("extra-unrelated").error["detail"])


@pytest.mark.parametrize("name", ["sabotaged-delta", "sabotaged-file"])
def test_a_wrong_merge_fails_its_proof_and_is_removed(zoo: MergedZoo, name: str) -> None:
    error = zoo.run(name).error
    assert error["code"] == "merge.proof-failed"
    assert error["exit_code"] == 6
    assert not zoo.out(name).exists()
    assert not zoo.out(name).with_name(f"{name}.partial").exists()
