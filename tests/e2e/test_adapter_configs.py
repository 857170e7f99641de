"""The rules for adapter configs against configs that the engine's own PEFT writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker_runs import WORKERS

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

PROGRAM = Path(__file__).parents[1] / "fixtures/adapter_configs.py"


@pytest.fixture(scope="module")
def answers(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the rules say (``routes``, ``defaults``), and what PEFT says (``fields``)."""
    root = tmp_path_factory.mktemp("configs")
    worker.program(PROGRAM, "write", root)
    worker.program(PROGRAM, "route", root, WORKERS)
    found: dict[str, Any] = json.loads((root / "routes.json").read_text())
    return found | {"fields": json.loads((root / "fields.json").read_text())}


STREAMED = {
    "plain", "every-module", "rslora", "dora", "biases", "patterns", "parameters", "tokens", "saved",
    "layers", "transposed", "gaussian", "random", "orthogonal", "mica", "eva", "corda-converted",
}  # fmt: skip
THROUGH_PEFT = {"pissa", "olora", "kasa", "velora", "bdlora", "monteclora", "ia3"}
REFUSED = {
    "pissa-random": "merge.unconverted-init",
    "corda": "merge.unconverted-init",
    "lora-ga": "merge.unconverted-init",
    "arrow": "merge.not-mergeable",
    "alora": "merge.not-mergeable",
    "qalora": "merge.not-mergeable",
    "replicated": "merge.not-mergeable",
    "prefix": "merge.not-mergeable",
}


def test_configs_as_peft_writes_them_go_where_they_belong(answers: dict[str, Any]) -> None:
    routes = answers["routes"]
    assert {kind for kind, route in routes.items() if route is None} == STREAMED
    refused = {kind: route for kind, route in routes.items() if str(route).startswith("merge.")}
    assert refused == REFUSED
    assert set(routes) - STREAMED - set(refused) == THROUGH_PEFT


def test_routing_imports_neither_peft_nor_torch(answers: dict[str, Any]) -> None:
    assert answers["imported"] == []


def test_fields_and_defaults_read_from_peft_s_source_are_those_it_has(
    answers: dict[str, Any],
) -> None:
    assert set(answers["defaults"]) == set(answers["fields"]["names"])
    read = {name: answers["defaults"][name] for name in answers["fields"]["defaults"]}
    assert read == answers["fields"]["defaults"]


def test_every_field_of_the_locked_peft_is_understood(answers: dict[str, Any]) -> None:
    assert set(answers["fields"]["names"]) <= set(answers["understood"])
