"""The weights counted from config.json alone are those that transformers makes, to the parameter and by role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.published_models import MODELS, config_of

from quantui.domain.models import TensorInfo
from quantui.domain.weights.weight_census import parameters_by_role, weight_census

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def built(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("built") / "parameters.json"
    program = FIXTURES / "count_parameters.py"
    worker.program(program, FIXTURES / "published_configs.json", out)
    answers: dict[str, Any] = json.loads(out.read_text())
    return answers


@pytest.mark.parametrize("name", MODELS)
def test_config_alone_counts_what_transformers_builds(built: dict[str, Any], name: str) -> None:
    made = built[name]
    assert not isinstance(made, str), made
    tensors = tuple(TensorInfo(n, "BF16", tuple(shape), "model.safetensors") for n, shape in made)
    counted = weight_census(config_of(name))
    assert counted is not None
    assert sum(group.elements for group in counted) == sum(tensor.elements for tensor in tensors)
    by_name = weight_census(config_of(name), tensors)
    assert by_name is not None
    assert parameters_by_role(counted) == parameters_by_role(by_name)
