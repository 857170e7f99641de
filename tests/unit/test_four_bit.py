"""Was it trained in 4 bit? The signs that repositories really have, and how they are weighed."""

from __future__ import annotations

import pytest

from quantui.domain.four_bit import (
    TrainingMaterial,
    judge,
    names_4bit,
    sixteen_bit_base,
    sixteen_bit_candidates,
)

PEFT_CARD_4BIT = """---
library_name: peft
---
## Training procedure

The following `bitsandbytes` quantization config was used during training:
- quant_method: bitsandbytes
- load_in_8bit: False
- load_in_4bit: True
- llm_int8_threshold: 6.0
- bnb_4bit_quant_type: nf4
### Framework versions
- PEFT 0.5.0
"""
PEFT_CARD_8BIT = PEFT_CARD_4BIT.replace("load_in_8bit: False", "load_in_8bit: True").replace(
    "load_in_4bit: True", "load_in_4bit: False"
)
AXOLOTL = """
base_model: NousResearch/Llama-2-7b-hf
load_in_8bit: false
load_in_4bit: true   # QLoRA
adapter: qlora
sequence_len: 4096
"""
AXOLOTL_16BIT = """
base_model: NousResearch/Llama-2-7b-hf
load_in_8bit: false
load_in_4bit: false
adapter: lora
"""
UNSLOTH_CARD = """---
base_model: unsloth/llama-3-8b-bnb-4bit
tags:
- unsloth
---
- **Finetuned from model :** unsloth/llama-3-8b-bnb-4bit
"""


def verdict(**fields):
    return judge(TrainingMaterial(name="owner/adapter", **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"texts": {"axolotl.yaml": AXOLOTL}},
        {"texts": {"llamafactory.yaml": "finetuning_type: lora\nquantization_bit: 4\n"}},
        {"texts": {"args.json": '{"quant_bits": 4, "nested": {"x": [1]}}'}},
        {"texts": {"training_params.json": '{"quantization": "int4"}'}},
        {"texts": {"config.yaml": "quantize: bnb.nf4-dq\n"}},
        {"texts": {"README.md": PEFT_CARD_4BIT}},
        {"texts": {"README.md": UNSLOTH_CARD}},
        {"texts": {"README.md": "---\nbase_model:\n- unsloth/Qwen2.5-7B-bnb-4bit\n---\n"}},
        {"texts": {"README.md": "<details>\n```yaml\n" + AXOLOTL + "```\n"}},
        {"adapter_config": {"base_model_name_or_path": "unsloth/mistral-7b-bnb-4bit"}},
        {"adapter_config": {"loftq_config": {"loftq_bits": 4}}},
        {"adapter_config": {"quantization_config": {"load_in_4bit": True}}},
        {"base_config": {"quantization_config": {"quant_method": "gptq", "bits": 4}}},
        {"base_config": {"quantization_config": {"_load_in_4bit": True}}},
        {"tags": ("base_model:adapter:unsloth/gemma-2b-bnb-4bit",)},
    ],
)
def test_strong_signs_of_4bit(fields):
    found = verdict(**fields)
    assert found.answer is True
    assert any(item.strength == "strong" and item.says_4bit for item in found.evidence)


@pytest.mark.parametrize(
    "fields",
    [
        {"texts": {"axolotl.yaml": AXOLOTL_16BIT}},
        {"texts": {"README.md": PEFT_CARD_8BIT}},
        {"texts": {"training_args.json": '{"load_in_4bit": false}'}},
        {"base_config": {"quantization_config": {"load_in_8bit": True}}},
    ],
)
def test_strong_signs_against_4bit(fields):
    assert verdict(**fields).answer is False


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": ("qlora",)},
        {"texts": {"README.md": "We trained this with QLoRA on one GPU."}},
        {"binaries": {"training_args.bin": b"\x80\x02X\x0c\0\0\0paged_adamw_32bit"}},
    ],
)
def test_weak_signs_alone_are_believed_and_say_that_they_are_weak(fields):
    found = verdict(**fields)
    assert found.answer is True
    assert {item.strength for item in found.evidence} == {"weak"}


def test_a_strong_sign_outranks_weak_ones_and_both_are_shown():
    found = verdict(tags=("qlora",), texts={"axolotl.yaml": AXOLOTL_16BIT})
    assert found.answer is False
    assert found.conflicting


def test_contradicting_strong_signs_leave_it_unknown():
    found = verdict(texts={"a.yaml": AXOLOTL, "b.yaml": AXOLOTL_16BIT})
    assert found.answer is None
    assert found.conflicting


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"texts": {"c.yaml": "# load_in_4bit: true\nlearning_rate: 0.0002\n"}},
        {"adapter_config": {"base_model_name_or_path": "Qwen/Qwen2.5-7B", "loftq_config": {}}},
        {"base_config": {"hidden_size": 4096}},
        {"texts": {"broken.json": "{"}},
        {"texts": {"deep.json": "[" * 100_000}},
    ],
)
def test_no_sign_is_unknown_and_not_no(fields):
    assert verdict(**fields).answer is None


def test_code_that_loads_in_4bit_is_weak_because_it_shows_use_and_not_training():
    found = verdict(texts={"README.md": "model = load(name, load_in_4bit=True)"})
    assert [item.strength for item in found.evidence] == ["weak"]


def test_the_users_word_decides_and_the_evidence_stays():
    found = judge(TrainingMaterial("a/b", texts={"axolotl.yaml": AXOLOTL}), override=False)
    assert found.answer is False
    assert found.overridden
    assert found.evidence


def test_pickled_arguments_are_searched_and_never_unpickled():
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise AssertionError('unpickled')",))

    import pickle

    content = pickle.dumps({"bomb": Bomb(), "quantization_bit": 4}, protocol=4)
    found = judge(TrainingMaterial("a/b", binaries={"training_args.bin": content}))
    assert found.answer is True
    assert found.evidence[0].strength == "weak"
    none = pickle.dumps({"quantization_bit": None}, protocol=4)
    assert judge(TrainingMaterial("a/b", binaries={"training_args.bin": none})).answer is None


def test_quotes_are_short_and_on_one_line():
    base = "x" * 500 + "-bnb-4bit"
    found = verdict(adapter_config={"base_model_name_or_path": base})
    assert len(found.evidence[0].text) <= 120


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unsloth/Qwen2.5-7B-bnb-4bit", "unsloth/Qwen2.5-7B"),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "unsloth/Qwen3-8B"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("someone/model-AWQ", "someone/model"),
        ("mlx-community/Phi-4-4bit", "mlx-community/Phi-4"),
        ("Qwen/Qwen2.5-7B", None),
        ("/data/models/Qwen2.5-7B-bnb-4bit", None),
        ("./Qwen-bnb-4bit", None),
        ("", None),
    ],
)
def test_the_16bit_base_is_suggested_by_name(name, expected):
    assert sixteen_bit_base(name) == expected


def test_the_upstream_owner_is_a_further_candidate():
    assert sixteen_bit_candidates("unsloth/Qwen2.5-7B-bnb-4bit") == (
        "unsloth/Qwen2.5-7B",
        "Qwen/Qwen2.5-7B",
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unsloth/a-bnb-4bit", True),
        ("x/a-GPTQ", True),
        ("x/a-GPTQ-Int8", False),
        ("x/a-8bit", False),
        ("meta-llama/Llama-4-Scout", False),
        ("x/Phi-4", False),
    ],
)
def test_names_of_4bit_checkpoints(name, expected):
    assert names_4bit(name) is expected
