"""The catalogue says of vLLM's quantization methods what the installed vLLM says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quantui.domain.method_findings import CATALOGUE_VLLM, version_numbers
from quantui.domain.methods import methods
from quantui.runtime.capabilities import engine_capabilities

if TYPE_CHECKING:
    from quantui.domain.methods import Method
    from quantui.engines.capabilities import Capabilities
    from quantui.engines.capabilities import Method as Registered
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def told(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTUI_HOME", str(tmp_path_factory.mktemp("quantui-home")))
        found = engine_capabilities(engine)
    if version_numbers(found.vllm)[:2] != CATALOGUE_VLLM:
        pytest.skip(f"the catalogue is of vLLM {CATALOGUE_VLLM}, the engine has {found.vllm}")
    return found


def entries_of(name: str) -> list[Method]:
    return [one for one in methods().values() if name in (*one.vllm_names, one.argument)]


def still_there(one: Method) -> bool:
    return one.served and (one.until is None or one.until > CATALOGUE_VLLM)


def test_every_registered_name_is_in_the_catalogue(told: Capabilities) -> None:
    assert told.methods
    unknown = [one.name for one in told.methods if not any(map(still_there, entries_of(one.name)))]
    assert unknown == []


def test_every_name_of_a_method_that_is_still_there_is_registered(told: Capabilities) -> None:
    registered = {one.name for one in told.methods}
    for one in methods().values():
        # Of a format that vLLM finds by other names too, one suffices.
        names = {name for name in (one.argument, *one.vllm_names) if name}
        if still_there(one) and one.name != "gguf" and names:
            assert names & registered, one.name
        if still_there(one) and one.argument:
            assert one.argument in registered, one.name


def test_what_the_catalogue_calls_gone_is_not_registered(told: Capabilities) -> None:
    registered = {one.name for one in told.methods}
    gone = {
        name
        for one in methods().values()
        if one.until is not None and one.until <= CATALOGUE_VLLM
        for name in one.vllm_names
    }
    assert gone & registered == set()


def needs_more_than_the_catalogue_says(one: Method, declared: Registered) -> bool:
    capability = declared.min_capability or 0
    major, minor = one.min_compute_capability
    return capability > major * 10 + minor


def test_no_class_asks_for_a_newer_card_than_the_catalogue(told: Capabilities) -> None:
    wrong = [
        (one.name, declared.name, declared.min_capability)
        for declared in told.methods
        for one in entries_of(declared.name)
        if still_there(one) and needs_more_than_the_catalogue_says(one, declared)
    ]
    assert wrong == []


def test_every_dtype_of_the_catalogue_is_one_the_class_takes(told: Capabilities) -> None:
    wrong = [
        (one.name, declared.name, sorted(set(one.dtypes) - set(declared.dtypes)))
        for declared in told.methods
        for one in entries_of(declared.name)
        if still_there(one) and not set(one.dtypes) <= set(declared.dtypes)
    ]
    assert wrong == []
