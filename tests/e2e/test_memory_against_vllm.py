"""What is predicted for small models is what a real vLLM on the CPU takes for them, and what it makes of its cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.small_architectures import SMALL
from fixtures.worker_runs import Worker

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.fitting.fit import Device, Fit, FitRequest, fit
from quantui.domain.methods import method
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

GIB = 1024**3
KV_BYTES = 256 * 1024**2
CONTEXT = 4096
PROGRAM = Path(__file__).parents[1] / "fixtures" / "vllm_loads.py"


@pytest.fixture(scope="module")
def told(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the started vLLM tells of each model."""
    root = tmp_path_factory.mktemp("small")
    for name, config in SMALL.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config))
    folders = [root / name for name in SMALL]
    Worker(engine.python).program(PROGRAM, KV_BYTES, CONTEXT, *folders)
    return {path.name: json.loads((path / "answer.json").read_text()) for path in folders}


def predicted(name: str) -> Fit:
    shape, census = model_shape(SMALL[name]), weight_census(SMALL[name])
    request = FitRequest(context=CONTEXT, kv_cache_bytes=KV_BYTES)
    return fit(shape, census, method("none"), [Device(True, 16 * GIB, 16 * GIB, "RAM")], request)


@pytest.mark.parametrize("name", SMALL)
def test_the_cache_holds_as_many_tokens_as_predicted(
    told: dict[str, dict[str, Any]], name: str
) -> None:
    answer = told[name]
    assert answer["answered"] == 2
    assert predicted(name).kv_cache_tokens == answer["kv_tokens"]


@pytest.mark.parametrize("name", SMALL)
def test_the_weights_take_what_was_predicted(told: dict[str, dict[str, Any]], name: str) -> None:
    answer = told[name]
    assert predicted(name).weights.bytes == pytest.approx(answer["weights"], rel=0.01)
