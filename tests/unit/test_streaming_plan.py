"""The plan of a streaming merge: made of headers and configs alone, whole or refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.checkpoint_folders import safetensors_bytes

WORKERS = str(Path(__file__).parents[2] / "quantui/engines/workers")
sys.path.insert(0, WORKERS)
import adapter_rules  # noqa: E402, F401
from quantui_wire import WorkerError  # noqa: E402

if WORKERS not in sys.path:
    sys.path.insert(0, WORKERS)
from streaming_merge import (  # noqa: E402
    adapter_files,
    checkpoint,
    fitting,
    layout,
    placement,
    planning,
)
from streaming_merge.operations import Direction, Factor, Output, Plan  # noqa: E402

if WORKERS in sys.path:
    sys.path.remove(WORKERS)

P = "base_model.model."
Q = "model.layers.{}.self_attn.q_proj"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "tie_word_embeddings": False,
    "vocab_size": 32,
}
MODEL = {
    "model.embed_tokens.weight": ("BF16", (32, 8)),
    "model.layers.0.self_attn.q_proj.weight": ("BF16", (12, 8)),
    "model.layers.0.self_attn.q_proj.bias": ("BF16", (12,)),
    "model.layers.0.norm.weight": ("BF16", (8,)),
    "model.layers.1.self_attn.q_proj.weight": ("BF16", (12, 8)),
    "lm_head.weight": ("BF16", (32, 8)),
}


def lora(module: str, rows: int = 12, columns: int = 8, rank: int = 2) -> dict[str, Any]:
    return {
        f"{P}{module}.lora_A.weight": ("F32", (rank, columns)),
        f"{P}{module}.lora_B.weight": ("F32", (rows, rank)),
    }


EVERY_LAYER = lora(Q.format(0)) | lora(Q.format(1))


class Files:
    """A base and adapters on disk, and their plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def base(self, *shards: dict[str, Any], **config: Any) -> checkpoint.Checkpoint:
        folder = self.folder / "base"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | config))
        names = [f"model-{n}.safetensors" for n in range(len(shards))]
        for name, tensors in zip(names, shards, strict=True):
            (folder / name).write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
        if len(shards) > 1:
            weight_map = {t: name for name, shard in zip(names, shards, strict=True) for t in shard}
            index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
            (folder / checkpoint.INDEX).write_text(json.dumps(index))
        return checkpoint.read_checkpoint(folder)

    def adapter(
        self, tensors: dict[str, Any], weight: float = 1.0, name: str = "adapter", **config: Any
    ) -> adapter_files.AdapterFile:
        folder = self.folder / name
        folder.mkdir()
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
        (folder / adapter_files.WEIGHTS).write_bytes(safetensors_bytes(tensors))
        return adapter_files.read_adapter(folder, settings | config, weight)

    def plan(
        self,
        *adapters: adapter_files.AdapterFile,
        base: checkpoint.Checkpoint | None = None,
        description: dict[str, Any] | None = None,
        dtype: str | None = None,
    ) -> Plan:
        base = base or self.base(MODEL)
        places = placement.Places(base.tensors, base.config["model_type"], description)
        return planning.build_plan(base, adapters, places, dtype=dtype)[0]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def outputs(plan: Plan) -> dict[str, Output]:
    return {output.name: output for shard in plan.shards for output in shard.outputs}


def refused(files: Files, *adapters: adapter_files.AdapterFile, **options: Any) -> dict[str, Any]:
    with pytest.raises(WorkerError) as caught:
        files.plan(*adapters, **options)
    return dict(caught.value.event)


TIED = {
    "tied": True,
    "input_embedding": "model.embed_tokens",
    "output_embedding": "lm_head",
    "shared": {"lm_head.weight": "model.embed_tokens.weight"},
    "renamed": {"lm_head": "lm_head", "model.embed_tokens": "model.embed_tokens"},
    "parameters": {"model.embed_tokens.weight": {"shape": [32, 8], "pieces": []}},
    "modules": {"lm_head": {"class": "Linear", "is_transposed": False}},
}
TIED_MODEL = {name: tensor for name, tensor in MODEL.items() if name != "lm_head.weight"}


def tied(files: Files) -> dict[str, Any]:
    return {"base": files.base(TIED_MODEL, tie_word_embeddings=True), "description": TIED}


class TestPlan:
    def test_what_the_adapter_does_not_name_is_untouched(self, files):
        plan = files.plan(files.adapter(EVERY_LAYER))
        changed = {name for name, output in outputs(plan).items() if not output.untouched}
        assert changed == {f"{Q.format(0)}.weight", f"{Q.format(1)}.weight"}

    def test_a_linear_layer_gets_b_times_a_with_alpha_over_rank(self, files):
        output = outputs(files.plan(files.adapter(EVERY_LAYER)))[f"{Q.format(0)}.weight"]
        (product,) = output.products
        assert (product.start, product.stop, product.scale) == (0, 12, 2.0)
        assert product.left == Factor(0, f"{P}{Q.format(0)}.lora_B.weight", "B", False, 0, 12)
        assert product.right == Factor(0, f"{P}{Q.format(0)}.lora_A.weight", "A", False, 0, 8)

    def test_a_file_of_the_same_tensors_keeps_its_header_byte_for_byte(self, files):
        base = files.base(MODEL)
        (shard,) = files.plan(files.adapter(EVERY_LAYER), base=base).shards
        assert shard.like == "model-0.safetensors"
        assert shard.header == base.shards[0].header
        assert shard.size == base.shards[0].path.stat().st_size

    def test_several_adapters_add_their_products_with_their_weights(self, files):
        one = files.adapter(EVERY_LAYER, 0.5, "one")
        other = files.adapter(EVERY_LAYER, 2.0, "other", lora_alpha=2)
        output = outputs(files.plan(one, other))[f"{Q.format(0)}.weight"]
        assert [(p.left.adapter, p.scale) for p in output.products] == [(0, 1.0), (1, 2.0)]

    def test_another_dtype_gives_a_new_header_of_the_right_size(self, files):
        (shard,) = files.plan(files.adapter(EVERY_LAYER), dtype="float32").shards
        assert shard.like is None
        entries = json.loads(shard.header[8:])
        assert entries["lm_head.weight"]["dtype"] == "F32"
        assert shard.size == len(shard.header) + 4 * (2 * 32 * 8 + 2 * 12 * 8 + 12 + 8)

    def test_a_saved_module_replaces_the_base_s_and_keeps_its_dtype(self, files):
        saved = EVERY_LAYER | {f"{P}lm_head.weight": ("F32", (32, 8))}
        output = outputs(files.plan(files.adapter(saved, modules_to_save=["lm_head"])))[
            "lm_head.weight"
        ]
        assert (output.adapter, output.source.dtype, output.dtype) == (0, "F32", "BF16")

    def test_a_resized_vocabulary_is_written_into_the_config(self, files):
        saved = EVERY_LAYER | {
            f"{P}{name}.weight": ("F32", (40, 8)) for name in ("lm_head", "model.embed_tokens")
        }
        plan = files.plan(files.adapter(saved, modules_to_save=["lm_head", "embed_tokens"]))
        assert plan.config == {"vocab_size": 40}
        assert outputs(plan)["lm_head.weight"].shape == (40, 8)

    def test_a_vocabulary_resized_on_one_side_alone_is_refused(self, files):
        saved = EVERY_LAYER | {f"{P}lm_head.weight": ("F32", (40, 8))}
        adapter = files.adapter(saved, modules_to_save=["lm_head"])
        assert refused(files, adapter)["code"] == "merge.shape-mismatch"

    def test_the_index_lists_what_each_file_holds_now(self, files):
        shards = ({n: t for n, t in TIED_MODEL.items() if "layers" in n}, {
            "model.embed_tokens.weight": ("BF16", (32, 8))
        })  # fmt: skip
        base = files.base(*shards, tie_word_embeddings=True)
        adapter = files.adapter(lora("lm_head", 32), target_modules=["lm_head"])
        plan = files.plan(adapter, base=base, description=TIED)
        index = layout.changed_index(plan, base.index)
        assert index is not None
        assert index["weight_map"]["lm_head.weight"] == "model-1.safetensors"
        assert index["metadata"]["total_size"] == sum(o.nbytes for o in outputs(plan).values())


class TestHeads:
    def test_a_classifier_s_head_takes_the_place_of_the_language_model_s(self, files):
        saved = EVERY_LAYER | {f"{P}score.weight": ("F32", (3, 8))}
        plan = files.plan(files.adapter(saved, task_type="SEQ_CLS", modules_to_save=["score"]))
        assert plan.config["architectures"] == ["LlamaForSequenceClassification"]
        assert plan.config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
        assert plan.left_out == ("lm_head.weight",)
        head = outputs(plan)["score.weight"]
        assert (head.adapter, head.dtype, head.shape) == (0, "BF16", (3, 8))
        assert "lm_head.weight" not in outputs(plan)

    def test_a_language_model_s_adapter_brings_no_head_that_the_base_lacks(self, files):
        saved = EVERY_LAYER | {f"{P}score.weight": ("F32", (3, 8))}
        error = refused(files, files.adapter(saved, modules_to_save=["score"]))
        assert error["code"] == "merge.keys-unmatched"


class TestTies:
    def test_a_change_of_the_head_alone_gives_it_a_tensor_of_its_own(self, files):
        adapter = files.adapter(lora("lm_head", 32), target_modules=["lm_head"])
        plan = files.plan(adapter, **tied(files))
        head, embedding = (outputs(plan)[f"{n}.weight"] for n in ("lm_head", "model.embed_tokens"))
        assert plan.config == {"tie_word_embeddings": False}
        assert (head.source.name, len(head.products)) == ("model.embed_tokens.weight", 1)
        assert embedding.untouched

    def test_a_change_of_the_embedding_alone_leaves_the_head_as_the_base_has_it(self, files):
        pair = {
            f"{P}model.embed_tokens.lora_embedding_A": ("F32", (2, 32)),
            f"{P}model.embed_tokens.lora_embedding_B": ("F32", (8, 2)),
        }
        adapter = files.adapter(pair, target_modules=["embed_tokens"])
        plan = files.plan(adapter, **tied(files))
        assert plan.config == {"tie_word_embeddings": False}
        assert not outputs(plan)["lm_head.weight"].products
        (product,) = outputs(plan)["model.embed_tokens.weight"].products
        assert (product.left.half, product.left.transposed, product.left.stop) == ("A", True, 32)

    def test_the_copy_of_the_base_beside_a_pair_is_no_obstacle_to_a_weight(self, files):
        own = {f"{P}lm_head.base_layer.weight": ("BF16", (32, 8))}
        adapter = files.adapter(lora("lm_head", 32) | own, 0.5, target_modules=["lm_head"])
        head = outputs(files.plan(adapter))["lm_head.weight"]
        assert (head.adapter, head.products[0].scale) == (None, 1.0)

    def test_a_float32_copy_of_a_bfloat16_tensor_is_one(self, files):
        half = bytes([1, 2]) * 256
        model = MODEL | {"lm_head.weight": ("BF16", (32, 8), half)}
        wide = bytes([0, 0, 1, 2]) * 256
        for name, values, bringer in (("same", wide, None), ("other", wide[:-1] + b"\3", 0)):
            own = {f"{P}lm_head.base_layer.weight": ("F32", (32, 8), values)}
            adapter = files.adapter(
                lora("lm_head", 32) | own, name=name, target_modules=["lm_head"]
            )
            plan = files.plan(adapter, base=files.base(model))
            assert outputs(plan)["lm_head.weight"].adapter == bringer

    def test_both_saved_with_the_same_values_stay_tied(self, files):
        values = bytes(range(256)) * 4
        saved = {
            f"{P}{n}.weight": ("F32", (32, 8), values) for n in ("lm_head", "model.embed_tokens")
        }
        adapter = files.adapter(EVERY_LAYER | saved, modules_to_save=["lm_head", "embed_tokens"])
        plan = files.plan(adapter, **tied(files))
        assert plan.config == {}
        assert "lm_head.weight" not in outputs(plan)

    def test_both_saved_with_other_values_are_parted(self, files):
        saved = {
            f"{P}lm_head.weight": ("F32", (32, 8), bytes(1024)),
            f"{P}model.embed_tokens.weight": ("F32", (32, 8), bytes(1023) + b"\1"),
        }
        adapter = files.adapter(EVERY_LAYER | saved, modules_to_save=["lm_head", "embed_tokens"])
        plan = files.plan(adapter, **tied(files))
        assert plan.config == {"tie_word_embeddings": False}
        assert outputs(plan)["lm_head.weight"].source.name == f"{P}lm_head.weight"

    def test_trained_tokens_of_a_tied_embedding_are_the_head_s_too(self, files):
        tokens = {f"{P}model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (2, 8))}
        adapter = files.adapter(EVERY_LAYER | tokens, trainable_token_indices=[3, 7])
        plan = files.plan(adapter, **tied(files))
        assert plan.config == {}
        rows = outputs(plan)["model.embed_tokens.weight"].rows
        assert rows is not None
        assert rows.indices == (3, 7)


class TestRefusals:
    def test_nothing_matches(self, files):
        adapter = files.adapter(lora("model.blocks.0.attention"), target_modules=["attention"])
        assert refused(files, adapter)["code"] == "merge.no-key-matched"

    def test_a_layer_that_the_config_asks_for_is_missing(self, files):
        error = refused(files, files.adapter(lora(Q.format(0))))
        assert error["code"] == "merge.keys-unmatched"
        assert error["detail"] == [f"no tensor: {Q.format(1)}"]

    def test_layers_that_training_left_out_are_not_missing(self, files):
        adapter = files.adapter(lora(Q.format(0)), layers_to_transform=[0])
        assert len(files.plan(adapter).consumed) == 2

    @pytest.mark.parametrize("targets", ["all-linear", r".*layers\.0\..*q_proj"])
    def test_targets_by_pattern(self, files, targets):
        assert files.plan(files.adapter(lora(Q.format(0)), target_modules=targets)).consumed

    def test_a_half_pair(self, files):
        tensors = dict(EVERY_LAYER)
        del tensors[f"{P}{Q.format(1)}.lora_B.weight"]
        assert refused(files, files.adapter(tensors))["code"] == "merge.keys-unmatched"

    def test_a_layer_that_the_base_does_not_have(self, files):
        error = refused(files, files.adapter(EVERY_LAYER | lora(Q.format(2))))
        assert error["code"] == "merge.keys-unmatched"
        assert "layers.2" in error["detail"][0]

    @pytest.mark.parametrize(
        ("tensors", "says"),
        [
            (lora(Q.format(0), rank=4), "has the rank 4; adapter_config.json says 2"),
            (lora(Q.format(0), rows=13), "are for a weight of [13, 8]; the base has [12, 8]"),
        ],
    )
    def test_shapes(self, files, tensors, says):
        error = refused(files, files.adapter(EVERY_LAYER | tensors))
        assert error["code"] == "merge.shape-mismatch"
        assert says in error["why"]

    def test_dora_without_its_magnitude(self, files):
        error = refused(files, files.adapter(EVERY_LAYER, use_dora=True))
        assert error["code"] == "merge.not-mergeable"

    def test_a_weight_on_more_than_lora(self, files):
        saved = EVERY_LAYER | {f"{P}lm_head.weight": ("F32", (32, 8))}
        adapter = files.adapter(saved, 0.5, modules_to_save=["lm_head"])
        assert refused(files, adapter)["code"] == "merge.adapters-conflict"

    def test_two_adapters_that_bring_the_same_tensor(self, files):
        saved = EVERY_LAYER | {f"{P}lm_head.weight": ("F32", (32, 8))}
        both = [files.adapter(saved, name=n, modules_to_save=["lm_head"]) for n in ("a", "b")]
        assert refused(files, *both)["code"] == "merge.adapters-conflict"

    def test_a_change_of_packed_weights(self, files):
        packed = MODEL | {f"{Q.format(0)}.weight": ("U8", (12, 8))}
        error = refused(files, files.adapter(EVERY_LAYER), base=files.base(packed))
        assert error["code"] == "merge.quantized-base"


class TestPlaces:
    def test_a_conv1d_model_does_not_tell_the_orientation_of_a_square_weight(self, files):
        base = files.base(MODEL, model_type="gpt2")
        adapter = files.adapter(EVERY_LAYER)
        places = placement.Places(base.tensors, "gpt2", None)
        parts = adapter_files.parts_of(adapter)
        assert fitting.needs_description(adapter, parts, places, base.config)

    def test_a_plain_adapter_needs_no_transformers(self, files):
        base, adapter = files.base(MODEL), files.adapter(EVERY_LAYER)
        places = placement.Places(base.tensors, "llama", None)
        parts = adapter_files.parts_of(adapter)
        assert not fitting.needs_description(adapter, parts, places, base.config)

    def test_experts_of_a_fused_parameter_go_to_the_tensors_they_came_from(self, files):
        stored = {
            f"model.layers.0.mlp.experts.{e}.{part}.weight": ("BF16", (6, 8))
            for e in range(2)
            for part in ("gate_proj", "up_proj")
        }
        module = "model.layers.0.mlp.experts"
        pieces = [
            {
                "source": f"{module}.{e}.{part}.weight",
                "source_start": [0, 0],
                "start": [e, row, 0],
                "shape": [6, 8],
                "transposed": False,
            }
            for e in range(2)
            for part, row in (("gate_proj", 0), ("up_proj", 6))
        ]
        name = f"{module}.gate_up_proj"
        description = {
            "tied": False, "input_embedding": None, "output_embedding": None, "shared": {},
            "renamed": {module: module},
            "parameters": {name: {"shape": [2, 12, 8], "pieces": pieces}},
            "modules": {module: {"class": "Experts", "is_transposed": False}},
        }  # fmt: skip
        adapter = files.adapter(
            lora(module, rows=12, rank=4),
            target_modules=[],
            target_parameters=["experts.gate_up_proj"],
        )
        plan = files.plan(adapter, base=files.base(MODEL | stored), description=description)
        (product,) = outputs(plan)[f"{module}.1.up_proj.weight"].products
        assert (product.start, product.stop, product.scale) == (0, 6, 2.0)
        assert (product.left.expert, product.left.experts) == (1, 2)
        assert (product.left.start, product.left.stop) == (6, 12)

    def test_dora_of_a_transposed_layer_is_by_column(self, files):
        tensors = {f"{P}h.0.c_attn.{n}": t for n, t in {
            "lora_A.weight": ("F32", (2, 8)), "lora_B.weight": ("F32", (12, 2)),
            "lora_magnitude_vector": ("F32", (12,)),
        }.items()}  # fmt: skip
        description = {
            "tied": False, "input_embedding": None, "output_embedding": None, "shared": {},
            "renamed": {"h.0.c_attn": "h.0.c_attn"}, "parameters": {},
            "modules": {"h.0.c_attn": {"class": "Conv1D", "is_transposed": False}},
        }  # fmt: skip
        base = files.base({"h.0.c_attn.weight": ("F32", (8, 12))}, model_type="gpt2")
        adapter = files.adapter(tensors, use_dora=True, target_modules=["c_attn"])
        output = outputs(files.plan(adapter, base=base, description=description))[
            "h.0.c_attn.weight"
        ]
        assert output.direction == Direction(
            0, f"{P}h.0.c_attn.lora_magnitude_vector", by_row=False
        )
        assert output.products[0].left.half == "A"
