"""What transformers makes of a checkpoint, told without reading its weights.

The judge is `from_pretrained`: the fixture program puts every parameter together from the values on
disk as the description says, and compares it bit by bit with the loaded model's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker_runs import WORKERS, WorkerRun

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

FIXTURES = Path(__file__).parents[1] / "fixtures"

WHOLE = (
    "llama", "qwen2-tied", "head-only", "stored-twice", "head-differs", "gpt2", "gpt2-bare", "phi3",
    "hrm", "mixtral", "qwen3-moe", "gpt-oss", "qwen2.5-vl", "qwen2.5-vl-new-names", "qwen3-vl-moe",
    "qwen3-vl-moe-transposed", "llava", "gemma3", "ernie-vl",
)  # fmt: skip
VISION_PART = "model.vision_tower.layers.0.attn."


class Described:
    """Every tiny model with its description, and how it compares with the loaded model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checked = json.loads((root / "checked.json").read_text())

    def run(self, case: str) -> WorkerRun:
        lines = (self.root / "events" / case).read_text().splitlines()
        return WorkerRun(0, [json.loads(line) for line in lines], "")

    def of(self, case: str) -> dict[str, Any]:
        return json.loads((self.root / "described" / f"{case}.json").read_text())


@pytest.fixture(scope="module")
def described(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Described:
    root = tmp_path_factory.mktemp("described")
    (root / "events").mkdir()
    worker.program(FIXTURES / "make_described.py", "build", root)
    describer = WORKERS / "describe_model.py"
    worker.program(FIXTURES / "warm_workers.py", describer, root / "jobs.json", root / "events")
    worker.program(FIXTURES / "make_described.py", "check", root)
    return Described(root)


@pytest.mark.parametrize("case", WHOLE)
def test_every_parameter_is_what_the_description_says(described: Described, case: str) -> None:
    checked = described.checked[case]
    assert checked["compared"] > 10
    assert checked["differ"] == []
    assert checked["only_one"] == []


@pytest.mark.parametrize("case", WHOLE)
def test_a_tie_is_known_unless_it_depends_on_values(described: Described, case: str) -> None:
    description = described.of(case)
    if not description.get("tied_by_values"):
        assert description["tied"] is described.checked[case]["tied"]
    assert description.get("tied_by_values", False) == (case in {"stored-twice", "head-differs"})


def test_what_transformers_makes_of_a_head_stored_beside_a_tied_embedding(
    described: Described,
) -> None:
    assert described.checked["stored-twice"]["tied"] is True
    assert described.checked["head-differs"]["tied"] is False
    for case in ("stored-twice", "head-differs"):
        parameters = described.of(case)["parameters"]
        assert {"lm_head.weight", "model.embed_tokens.weight"} <= parameters.keys()


def test_a_tied_parameter_that_is_not_stored_names_the_one_that_is(described: Described) -> None:
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    assert described.of("qwen2-tied")["shared"] == {head: embedding}
    assert described.of("head-only")["shared"] == {embedding: head}
    assert head not in described.of("qwen2-tied")["parameters"]


def test_experts_are_stacked_in_the_order_of_their_numbers(described: Described) -> None:
    experts = described.of("mixtral")["parameters"]["model.layers.0.mlp.experts.gate_up_proj"]
    assert experts["shape"] == [12, 96, 32]
    prefix = "model.layers.0.block_sparse_moe.experts"
    assert experts["pieces"] == [
        {
            "source": f"{prefix}.{expert}.{part}.weight",
            "source_start": [0, 0],
            "start": [expert, row, 0],
            "shape": [48, 32],
            "transposed": False,
        }
        for expert in range(12)
        for part, row in (("w1", 0), ("w3", 48))
    ]


def test_a_tensor_cut_into_several_parameters_is_described_by_regions(described: Described) -> None:
    parameters = described.of("hrm")["parameters"]
    (piece,) = parameters["model.L_module.layers.0.self_attn.k_proj.weight"]["pieces"]
    assert piece["source"].endswith("attn.gqkv_proj.weight")
    assert piece["source_start"] == [64, 0]
    assert piece["shape"] == [32, 32]


def test_a_conversion_that_transposes_says_so(described: Described) -> None:
    name = "model.language_model.layers.0.mlp.experts.down_proj"
    for case, transposed in (("qwen3-vl-moe", False), ("qwen3-vl-moe-transposed", True)):
        (piece,) = described.of(case)["parameters"][name]["pieces"]
        assert piece["shape"] == [12, 32, 24]
        assert piece["transposed"] is transposed


def test_a_conversion_that_is_no_arrangement_of_regions_is_named(described: Described) -> None:
    unmapped = {
        name: entry["unmapped"]
        for name, entry in described.of("kimi")["parameters"].items()
        if "unmapped" in entry
    }
    assert unmapped == {
        f"{VISION_PART}{part}_proj.{kind}": "operation PermuteForRope"
        for part in "qkv"
        for kind in ("weight", "bias")
    }
    checked = described.checked["kimi"]
    assert checked["only_one"] == sorted(unmapped)
    assert checked["differ"] == []


def test_a_tensor_of_another_shape_is_not_mapped(described: Described) -> None:
    parameters = described.of("mismatched")["parameters"]
    unmapped = {name for name, entry in parameters.items() if "unmapped" in entry}
    assert unmapped == {"model.embed_tokens.weight", "lm_head.weight"}
    assert "[64, 32]" in parameters["lm_head.weight"]["unmapped"]


def test_stored_tensors_that_no_parameter_takes_are_listed(described: Described) -> None:
    assert described.of("llama")["unused"] == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert described.of("mixtral")["unused"] == []


@pytest.mark.parametrize(
    ("case", "renamed"),
    [
        (
            "qwen2.5-vl",
            {
                "model.layers.0.self_attn.q_proj": "model.language_model.layers.0.self_attn.q_proj",
                "model.layers.0.mlp": "model.language_model.layers.0.mlp",
                "model.language_model.layers.1.mlp.up_proj": (
                    "model.language_model.layers.1.mlp.up_proj"
                ),
                "visual.blocks.0.attn.qkv": "model.visual.blocks.0.attn.qkv",
                "lm_head": "lm_head",
                "model.layers.7.self_attn.q_proj": None,
            },
        ),
        (
            "mixtral",
            {
                "model.layers.0.block_sparse_moe.gate": "model.layers.0.mlp.gate",
                "model.layers.0.block_sparse_moe.experts.0.w1": None,
                "model.layers.0.self_attn.q_proj": "model.layers.0.self_attn.q_proj",
            },
        ),
        (
            "llava",
            {
                "language_model.model.layers.0.self_attn.q_proj": (
                    "model.language_model.layers.0.self_attn.q_proj"
                ),
                "language_model.lm_head": "lm_head",
                "multi_modal_projector.linear_1": "model.multi_modal_projector.linear_1",
            },
        ),
        (
            "gpt2",
            {
                "h.1.mlp.c_fc": "transformer.h.1.mlp.c_fc",
                "transformer.h.0.attn.c_attn": "transformer.h.0.attn.c_attn",
            },
        ),
    ],
)
def test_a_module_of_an_older_version_is_found(
    described: Described, case: str, renamed: dict[str, str | None]
) -> None:
    assert described.of(case)["renamed"] == renamed


def test_modules_say_how_they_store_their_weights(described: Described) -> None:
    gpt_oss = described.of("gpt-oss")["modules"]
    experts = {"class": "GptOssExperts", "is_transposed": True}
    assert gpt_oss["model.layers.0.mlp.experts"] == experts
    assert gpt_oss["lm_head"] == {"class": "Linear", "is_transposed": False}
    assert (
        described.of("mixtral")["modules"]["model.layers.0.mlp.experts"]["is_transposed"] is False
    )
    assert described.of("gpt2")["modules"]["transformer.h.0.attn.c_attn"]["class"] == "Conv1D"


def test_the_embeddings_are_named(described: Described) -> None:
    description = described.of("gemma3")
    assert description["architecture"] == "Gemma3ForConditionalGeneration"
    assert description["input_embedding"] == "model.language_model.embed_tokens"
    assert description["output_embedding"] == "lm_head"


@pytest.mark.parametrize(
    ("case", "code", "part"),
    [
        ("missing", "model.damaged", "model.layers.1.mlp.up_proj.weight"),
        ("cut-off", "model.damaged", "bytes"),
        ("unknown", "merge.unknown-architecture", "newer than this engine"),
        ("bad-config", "model.bad-config", "num_attention_heads"),
    ],
)
def test_what_is_no_whole_known_model_is_refused(
    described: Described, case: str, code: str, part: str
) -> None:
    error = described.run(case).error
    assert error["code"] == code
    assert error["exit_code"] == 2
    assert part in error["why"]
    assert not (described.root / "described" / f"{case}.json").exists()


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_the_models_own_code_runs_only_when_trusted(
    described: Described, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    base = tmp_path / "own"
    shutil.copytree(described.root / "bases/llama", base)
    config = json.loads((base / "config.json").read_text()) | {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    (base / "config.json").write_text(json.dumps(config))
    (base / "own.py").write_text(OWN_CODE)
    job = {"base": str(base), "out": str(tmp_path / "own.json")}
    error = worker.run("describe_model", job, tmp_path).error
    assert error["code"] == "merge.unknown-architecture"
    assert worker.run("describe_model", job | {"trust_remote_code": True}, tmp_path).result
    description = json.loads((tmp_path / "own.json").read_text())
    assert description["architecture"] == "OwnForCausalLM"
    assert description["parameters"] == described.of("llama")["parameters"]
