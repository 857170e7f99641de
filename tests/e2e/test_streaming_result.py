"""The folder that a merge by streaming leaves: what changed, what did not, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.merged_zoo import stored, ulps_apart
from fixtures.zoo.catalogue import IN_BLOCKS, runs

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.merged_zoo import MergedZoo
    from fixtures.worker_runs import Worker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

STREAMED = [
    run
    for run in runs()
    if not run.startswith(("convolution", "v4-mixtral-fused", "v4-qwen3-fused"))
]
EVERY = list(runs())


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.mark.parametrize("run", STREAMED)
def test_what_the_adapter_does_not_touch_is_the_bases_byte_for_byte(
    zoo: MergedZoo, run: str
) -> None:
    before, after = stored(zoo.base(run)), stored(zoo.out(run))
    proof = json.loads((zoo.out(run) / "merge_proof.json").read_text())
    touched = set(proof["delta_norms"]) | set(proof["proof"]["replaced"])
    assert before.keys() - after.keys() == set()
    embedding = next((t for name, t in before.items() if "embed_tokens" in name or "wte" in name))
    for name in after.keys() - touched:
        # A head that is given a tensor of its own keeps what it shared with the embedding.
        assert after[name].data == before.get(name, embedding).data, name
    assert zoo.run(run).result["tensors_changed"] == len(touched)
    assert zoo.run(run).result["tensors_untouched"] == len(after.keys() - touched)
    identical = proof["proof"]["untouched_identical"]
    assert identical == len(after.keys() - touched)


@pytest.mark.parametrize("run", STREAMED)
def test_every_tensor_keeps_its_dtype_and_its_file(zoo: MergedZoo, run: str) -> None:
    before, after = stored(zoo.base(run)), stored(zoo.out(run))
    for name, tensor in before.items():
        assert (after[name].dtype, after[name].file) == (tensor.dtype, tensor.file), name


@pytest.mark.parametrize("run", EVERY)
def test_every_tensor_of_the_adapter_is_counted(zoo: MergedZoo, run: str) -> None:
    held = sum(len(stored(folder)) for folder in zoo.adapters(run))
    assert zoo.run(run).result["adapter_tensors"] == held


@pytest.mark.parametrize("run", EVERY)
def test_the_index_names_the_file_of_every_tensor(zoo: MergedZoo, run: str) -> None:
    out = zoo.out(run)
    tensors = stored(out)
    index = out / "model.safetensors.index.json"
    if not index.exists():
        assert {tensor.file for tensor in tensors.values()} == {"model.safetensors"}
        return
    found = json.loads(index.read_text())
    assert found["weight_map"] == {name: tensor.file for name, tensor in tensors.items()}
    assert found["metadata"]["total_size"] == sum(len(t.data) for t in tensors.values())


@pytest.mark.parametrize("run", EVERY)
def test_the_config_is_the_bases_but_for_tie_vocabulary_and_dtype(zoo: MergedZoo, run: str) -> None:
    case, _ = runs()[run]
    before, after = config(zoo.base(run)), config(zoo.out(run))
    free = {"tie_word_embeddings", "vocab_size", "dtype", "torch_dtype", "text_config"}
    assert {k: v for k, v in after.items() if k not in free} == {
        k: v for k, v in before.items() if k not in free
    }
    assert "quantization_config" not in after
    text = after.get("text_config", after)
    assert text["vocab_size"] == case.tokens
    if not case.tied and not run.startswith("parted"):
        assert after["tie_word_embeddings"] is False
    assert text.get("dtype", after.get("dtype")) == before.get("dtype")


@pytest.mark.parametrize("run", EVERY)
def test_side_files_are_copied_and_pickles_are_not(zoo: MergedZoo, run: str) -> None:
    files = {path.name for path in zoo.out(run).iterdir()}
    assert {"LICENSE", "config.json", "tokenizer_config.json", "merge_proof.json"} <= files
    assert not any(name.endswith((".bin", ".part", ".partial", ".jsonl")) for name in files)


@pytest.mark.parametrize("run", EVERY)
def test_the_proof_in_the_folder_is_what_the_worker_reported(zoo: MergedZoo, run: str) -> None:
    proof = json.loads((zoo.out(run) / "merge_proof.json").read_text())
    result = zoo.run(run).result
    for key in ("proof", "tensors_changed", "tensors_untouched", "adapter_tensors", "versions"):
        assert proof[key] == result[key]
    assert proof["method"] == result["method"]
    assert proof["proof"]["all_finite"] is True
    assert all(norm > 0 for norm in proof["delta_norms"].values())


@pytest.mark.parametrize("run", [run for run in STREAMED if run.endswith("bf16")])
def test_sampled_rows_are_the_nearest_to_float64(zoo: MergedZoo, run: str) -> None:
    proof = zoo.run(run).result["proof"]
    if not proof["sampled_values"]:
        return
    # One rounding and float32 arithmetic: 99.9994 % of many, and a handful of few.
    assert proof["correctly_rounded"] > 0.999
    assert proof["max_ulp"] <= 0.5001


@pytest.mark.parametrize("case", IN_BLOCKS)
def test_how_a_tensor_is_cut_into_blocks_changes_no_value(zoo: MergedZoo, case: str) -> None:
    assert zoo.run(f"{case}-in-blocks").result["method"] == "streamed"
    whole, cut = stored(zoo.out(f"{case}-bf16")), stored(zoo.out(f"{case}-in-blocks"))
    assert whole.keys() == cut.keys()
    apart = [ulps for name in whole for ulps in ulps_apart(whole[name], cut[name])]
    elements = sum(len(tensor.data) // 2 for tensor in whole.values())
    # A product of single rows is summed in another order: float32's last bit turns a rounding.
    assert len(apart) <= elements / 10_000
    assert all(ulps == 1 for ulps in apart), apart


@pytest.mark.parametrize("run", ["llama-bf16", "mixtral-bf16", "tied-head-f32"])
def test_a_process_of_its_own_gives_the_same_bytes(
    zoo: MergedZoo, worker: Worker, tmp_path: Path, run: str
) -> None:
    job = zoo.jobs[run] | {"out": str(tmp_path / "merged"), "workers": 1}
    result = worker.run("merge_adapter", job, tmp_path).result
    assert result["method"] == "streamed"
    assert stored(tmp_path / "merged") == stored(zoo.out(run))


def test_a_process_of_its_own_becomes_peft_where_it_must(
    zoo: MergedZoo, worker: Worker, tmp_path: Path
) -> None:
    job = zoo.jobs["convolution-f32"] | {"out": str(tmp_path / "merged")}
    result = worker.run("merge_adapter", job, tmp_path).result
    assert result["method"] == "peft"
    assert "convolution" in result["why_peft"]
    assert result["proof"]["logits"]["passed"] is True


def test_the_result_has_the_dtype_asked_for(zoo: MergedZoo, worker: Worker, tmp_path: Path) -> None:
    job = zoo.jobs["qwen3-f32"] | {"out": str(tmp_path / "merged"), "dtype": "bfloat16"}
    proof = worker.run("merge_adapter", job | {"verify": "logits"}, tmp_path).result["proof"]
    tensors = stored(tmp_path / "merged")
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    assert config(tmp_path / "merged")["dtype"] == "bfloat16"
    assert len(proof["converted"]) + proof["untouched_identical"] + 14 == len(tensors)
    assert proof["logits"]["kl_merged"] <= 0.05 * proof["logits"]["kl_base"]


def test_the_tokenizer_of_the_adapter_is_taken_and_said(
    zoo: MergedZoo, worker: Worker, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in zoo.adapters("llama-bf16")[0].iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    (adapter / "tokenizer_config.json").write_text('{"model_max_length": 99}')
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    job = zoo.jobs["llama-bf16"] | {"adapter": str(adapter), "out": str(tmp_path / "merged")}
    run = worker.run("merge_adapter", job, tmp_path)
    assert (tmp_path / "merged/chat_template.jinja").read_text() == "{{ messages }}"
    assert "99" in (tmp_path / "merged/tokenizer_config.json").read_text()
    taken = run.result["proof"]["tokenizer_files_from_adapter"]
    assert sorted(taken) == ["chat_template.jinja", "tokenizer_config.json"]
    assert any("chat_template.jinja" in e["text"] for e in run.events if e["type"] == "notice")
