"""What is served is base and adapter: token by token, against transformers with unmerged PEFT.

The reference runs in float32, with the weights as they are stored (bfloat16 values are exact in it):
it says what base and adapter mean, without a rounding of its own. vLLM serves and computes in bfloat16, so the
agreement bears the merge's one rounding and that of bfloat16 arithmetic. How much the latter takes away
by itself is measured beside it: transformers in bfloat16 against transformers in float32, same weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fixtures.deployment import Deployment
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

WINDOW = 512

WANTED = 0.99

MOST_BY_QUANTIZATION = 1.15
"""NF4 costs a model of this size 5 % of perplexity (80 to 84, docs/METHODS.md); broken weights cost all."""

TEACHER_FORCED = Path(__file__).parents[1] / "fixtures/teacher_forced.py"


@dataclass(frozen=True)
class Reference:
    """What transformers predicts: ``base`` and ``adapter``, each in float32 and bfloat16."""

    found: dict[str, Any]

    @property
    def windows(self) -> list[list[int]]:
        windows: list[list[int]] = self.found["windows"]
        return windows

    def agreement(self, name: str, top1: list[list[int]]) -> float:
        """The part of predictions that are those of ``name``."""
        return agreement(self.found[name]["top1"], top1)


def agreement(one: list[list[int]], other: list[list[int]]) -> float:
    """The part of at least two thousand predictions that are the same, window by window."""
    same = [
        mine == theirs
        for window, beside in zip(one, other, strict=True)
        for mine, theirs in zip(window, beside, strict=True)
    ]
    assert len(same) >= 2000
    return sum(same) / len(same)


@pytest.fixture(scope="module")
def reference(
    deployment: Deployment, worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    out = tmp_path_factory.mktemp("reference") / "predictions.json"
    worker.program(
        TEACHER_FORCED, deployment.base, deployment.adapter, deployment.text, WINDOW, out
    )
    return Reference(json.loads(out.read_text()))


@pytest.fixture(scope="module")
def merged(deployment: Deployment, reference: Reference) -> list[list[int]]:
    """The likeliest tokens of the merged model, served as it is."""
    served = deployment.serve("quantization.method=none")
    try:
        return served.top1(reference.windows)
    finally:
        assert served.running.stop().exit_code == 0


@dataclass(frozen=True)
class Unmerged:
    """What a run served whose merge died: the adapter beside its base, and the base."""

    adapter: list[list[int]]
    base: list[list[int]]
    events: list[dict[str, Any]]
    exit_code: int


@pytest.fixture(scope="module")
def unmerged(
    deployment: Deployment, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Unmerged:
    """An engine whose merge is killed as the kernel does when memory ends."""
    python = tmp_path_factory.mktemp("engine") / "python"
    python.write_text(
        '#!/bin/sh\ncase "$1" in *merge_adapter.py) kill -9 $$;; esac\n'
        f'exec {deployment.engine_python} "$@"\n'
    )
    python.chmod(0o755)
    served = deployment.serve(
        "quantization.method=none",
        "merge.recreate=true",
        "merge.on_failure=serve-lora",
        f"engine.python={python}",
    )
    try:
        adapter = served.top1(reference.windows)
        base = served.top1(reference.windows, f"{served.model}-base")
    finally:
        ended = served.running.stop()
    return Unmerged(adapter, base, ended.events, ended.exit_code)


def test_the_served_merged_model_is_base_and_adapter(
    reference: Reference, merged: list[list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    exact = reference.agreement("adapter-float32", merged)
    floor = reference.agreement("adapter-float32", reference.found["adapter-bfloat16"]["top1"])
    same = reference.agreement("adapter-bfloat16", merged)
    with capsys.disabled():
        tokens = reference.found["adapter-float32"]["tokens"]
        print(
            f"\n  top-1 agreement over {tokens} tokens with base + unmerged adapter:\n"
            f"    merged, served in bfloat16, against float32    {exact:.2%}\n"
            f"    merged, served in bfloat16, against bfloat16   {same:.2%}\n"
            f"    transformers in bfloat16 against its float32   {floor:.2%}"
        )
    assert exact >= WANTED
    assert same >= WANTED


def test_the_base_alone_is_not(reference: Reference, unmerged: Unmerged) -> None:
    assert reference.agreement("adapter-float32", unmerged.base) < 0.5
    # That it is the base, and not something broken. Text so foreign to it has many near ties.
    assert reference.agreement("base-bfloat16", unmerged.base) > 0.95


def test_when_no_device_can_merge_the_adapter_is_served_beside_its_base(
    unmerged: Unmerged,
) -> None:
    assert unmerged.exit_code == 0
    kinds = [(event["type"], event.get("step")) for event in unmerged.events]
    assert ("step.failed", "merge") in kinds
    failed = next(event for event in unmerged.events if event["type"] == "step.failed")
    assert failed["final"] is False
    assert failed["error"]["code"] == "worker.died"
    assert "no memory left" in failed["error"]["why"]
    warnings = [e["text"] for e in unmerged.events if e["type"] == "notice"]
    assert any("serves the base with the adapter beside it" in text for text in warnings)


def test_served_unmerged_it_answers_as_merged(
    reference: Reference, merged: list[list[int]], unmerged: Unmerged
) -> None:
    assert reference.agreement("adapter-float32", unmerged.adapter) >= WANTED
    assert agreement(merged, unmerged.adapter) >= WANTED


def test_a_failed_recreation_leaves_the_artifact_that_was_there(
    deployment: Deployment, unmerged: Unmerged
) -> None:
    assert unmerged.exit_code == 0
    assert "(made before: reused)" in deployment.run("--check").text
    assert deployment.home.unfinished == []


def test_perplexity_of_what_bitsandbytes_left_is_reported_beside(
    deployment: Deployment, reference: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    (served,) = [e for e in deployment.first.of("measured") if e["name"] == "perplexity"]
    of = {name: reference.found[name]["perplexity"] for name in reference.found if "-" in name}
    with capsys.disabled():
        print(
            "\n  perplexity of held-out text of the adapter's domain:\n"
            f"    base alone, float32            {of['base-float32']:10.2f}\n"
            f"    base + adapter, float32        {of['adapter-float32']:10.2f}\n"
            f"    base + adapter, bfloat16       {of['adapter-bfloat16']:10.2f}\n"
            f"    merged, bitsandbytes, served   {served['value']:10.2f}"
        )
    assert math.isfinite(served["value"])
    assert served["value"] < of["adapter-float32"] * MOST_BY_QUANTIZATION
    assert served["value"] < of["base-float32"] / 10
