"""The catalogue says of vLLM's quantization methods what the installed vLLM says of itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantui.domain.methods import methods
from quantui.domain.support.method_devices import FLOAT16_REFUSED
from quantui.domain.support.method_findings import CATALOGUE_VLLM
from quantui.domain.support.method_splits import MARLIN_GROUPS, MARLIN_TILE
from quantui.domain.versions import version_numbers
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


@pytest.fixture(scope="module")
def rules(told: Capabilities, engine: Engine) -> dict[str, Any]:
    del told  # of another version they are not asked
    program = Path(__file__).parents[1] / "fixtures" / "vllm_rules.py"
    done = subprocess.run(
        [engine.python, program], capture_output=True, text=True, timeout=600, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


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


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("w4a16", "CompressedTensorsWNA16"),
        ("w8a16", "CompressedTensorsWNA16"),
        ("int8_w8a8", "CompressedTensorsW8A8Int8"),
        ("fp8_dynamic", "CompressedTensorsW8A16Fp8"),
        ("fp8_static", "CompressedTensorsW8A16Fp8"),
        ("w4a8", "CompressedTensorsW4A8Fp8"),
        ("nvfp4", "CompressedTensorsW4A4Fp4"),
        ("mxfp4", "CompressedTensorsW4A4Mxfp4"),
    ],
)
def test_the_schemes_of_compressed_tensors_need_what_the_catalogue_says(
    rules: dict[str, Any], name: str, scheme: str
) -> None:
    major, minor = methods()[name].min_compute_capability
    assert rules["schemes"][scheme] == major * 10 + minor


def test_fp8_activations_begin_where_the_catalogue_says(rules: dict[str, Any]) -> None:
    major, minor = methods()["fp8_dynamic"].weight_only_below or (0, 0)
    assert rules["schemes"]["CompressedTensorsW8A8Fp8"] == major * 10 + minor


def test_what_quantizes_experts_only_in_flight_is_marked(rules: dict[str, Any]) -> None:
    marked = {one.argument for one in methods().values() if "moe" in one.only}
    assert marked & set(rules["in_flight"]) == set(rules["experts_only"])


def test_what_vllm_deprecates_is_marked(rules: dict[str, Any]) -> None:
    marked = {one.name for one in methods().values() if one.deprecated_since and still_there(one)}
    assert marked == set(rules["deprecated"])


def test_the_constants_of_the_checks_are_vllms(rules: dict[str, Any]) -> None:
    assert rules["float16_refused"] == sorted(FLOAT16_REFUSED)
    assert rules["marlin_tile"] == list(MARLIN_TILE)
    assert rules["marlin_groups"] == list(MARLIN_GROUPS)
    assert rules["gptq"] == [[4, True], [8, True]]
    assert rules["awq"] == [4]
