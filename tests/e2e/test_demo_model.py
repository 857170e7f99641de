"""The demo model and adapter: real, small, and visibly different from one another."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def facts(demo: Path) -> dict[str, Any]:
    return json.loads((demo / "demo.json").read_text())


def test_base_has_learned_english_documentation(facts: dict[str, Any]) -> None:
    # Uniform guessing would be 4096.
    assert facts["perplexity"]["base_on_heldout"] < 150


def test_adapter_makes_its_own_domain_many_times_likelier(facts: dict[str, Any]) -> None:
    perplexity = facts["perplexity"]
    assert perplexity["adapter_on_heldout_adapter"] < perplexity["base_on_heldout_adapter"] / 10


def test_a_person_sees_the_adapter_in_the_answer_to_one_prompt(facts: dict[str, Any]) -> None:
    example = facts["example"]
    assert example["adapter"].strip().startswith("Once upon a time there was ")
    assert "Once upon" not in example["base"]


def test_held_out_text_carries_two_thousand_tokens_of_each_domain(facts: dict[str, Any]) -> None:
    assert facts["tokens"]["heldout"] >= 2000
    assert facts["tokens"]["heldout_adapter"] >= 2000


def test_linear_layers_divide_into_quantization_groups_of_128(demo: Path) -> None:
    config = json.loads((demo / "base/config.json").read_text())
    assert config["hidden_size"] % 128 == 0
    assert config["intermediate_size"] % 128 == 0
    assert config["hidden_size"] // config["num_attention_heads"] == 64
    assert config["dtype"] == "bfloat16"


def test_adapter_names_the_base_beside_it_and_every_linear_layer(demo: Path) -> None:
    config = json.loads((demo / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(demo / "base")
    assert config["r"] == 16
    assert len(config["target_modules"]) == 7


def test_tokenizer_of_the_saved_folder_is_the_one_that_was_trained(
    demo: Path, worker: Worker, tmp_path: Path
) -> None:
    """transformers 5 rebuilds a Qwen2 tokenizer's pipeline instead of reading it."""
    program = tmp_path / "tokens.py"
    program.write_text(
        "import sys, json\n"
        "from tokenizers import Tokenizer\n"
        "from transformers import AutoTokenizer\n"
        "text = open(sys.argv[1] + '/heldout.txt').read()\n"
        "raw = Tokenizer.from_file(sys.argv[1] + '/base/tokenizer.json')\n"
        "auto = AutoTokenizer.from_pretrained(sys.argv[1] + '/base')\n"
        "assert raw.encode(text).ids == auto(text)['input_ids']\n"
        "assert auto.decode(auto(text)['input_ids']) == text\n"
        "chat = [{'role': 'user', 'content': 'What is abc.ABC?'}]\n"
        "made = auto.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)\n"
        "assert made == 'Question: What is abc.ABC?\\nAnswer:', made\n"
    )
    worker.program(program, demo)


def test_a_finished_demo_is_never_overwritten(demo: Path, worker: Worker, tmp_path: Path) -> None:
    run = worker.run("make_demo", {"out": str(demo)}, tmp_path)
    assert run.error["code"] == "demo.exists"
    assert (demo / "demo.json").exists()


def test_stopping_in_the_middle_of_training_leaves_nothing(worker: Worker, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = worker.start("make_demo", {"out": str(out)}, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("type") == "progress":
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 130
    process.communicate()
    assert not out.exists()
    assert not out.with_name("demo.partial").exists()
