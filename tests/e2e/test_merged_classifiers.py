"""A classifier trained as a language model's adapter becomes a classifier, head and all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FIXTURE = Path(__file__).parents[1] / "fixtures/make_classifiers.py"
NAMES = ["SEQ_CLS-tied", "SEQ_CLS-untied", "TOKEN_CLS-tied", "TOKEN_CLS-untied"]


@pytest.fixture(scope="module")
def made(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classifiers")
    worker.program(FIXTURE, "make", root)
    for name in NAMES:
        folder = root / name
        job = {part: str(folder / part) for part in ("base", "adapter", "out")}
        assert worker.run("merge_adapter", job, folder).result["method"] == "streamed"
    worker.program(FIXTURE, "compare", root)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_base_and_unmerged_adapter_do(made: Path, name: str) -> None:
    assert json.loads((made / "compared.json").read_text())[name] < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_its_config_names_its_class_and_labels(made: Path, name: str) -> None:
    config = json.loads((made / name / "out/config.json").read_text())
    ending = "ForSequenceClassification" if "SEQ" in name else "ForTokenClassification"
    assert config["architectures"] == [f"Qwen2{ending}"]
    assert len(config["id2label"]) == 3


def test_its_answers_cannot_be_compared_with_a_language_model_s(made: Path, worker: Worker) -> None:
    folder = made / NAMES[0]
    job = {"base": str(folder / "base"), "adapter": str(folder / "adapter")}
    run = worker.run("merge_adapter", job | {"out": str(folder / "no"), "verify": "logits"}, folder)
    assert run.error["code"] == "merge.no-reference"
    assert not (folder / "no").exists()
