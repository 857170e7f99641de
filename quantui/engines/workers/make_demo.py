"""Worker: make a small real causal LM and a real LoRA adapter, on the CPU, from nothing.

Job: ``out`` (folder to create), and optionally ``seed`` (0), ``threads`` (the CPUs this process may
use, 8 at most), ``base_steps`` and ``adapter_steps`` (training steps of 1,024 tokens).

Gives ``out/base`` (Qwen2, bfloat16), ``out/adapter`` (PEFT LoRA, rank 16 on every linear layer),
``heldout.txt`` and ``heldout_adapter.txt`` (text of either domain that was never trained on) and
``demo.json`` (what was measured while making it). The folder appears whole or not at all.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atomic_folder
import demo_model  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import quantui_wire as wire
from demo_model import text as demo_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Torch's idle threads spin by default and take the cores from whatever else runs: beside one other
# busy process this worker took 110 s instead of 29 s for the same steps. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BASE_STEPS = 270
ADAPTER_STEPS = 160
VOCABULARY = 4096
CONTEXT = 1024
ANSWER_TOKENS = 96
TEMPERATURE = 0.2
EXAMPLE = "Tell me a story."
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Clock:
    """Seconds that each phase took, for ``demo.json``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = ""
        self._since = 0.0

    def phase(self, name: str) -> None:
        """Announce the phase ``name`` and end the one before it."""
        self.stop()
        self._name, self._since = name, time.monotonic()
        wire.phase(name)

    def stop(self) -> None:
        """End the current phase."""
        if self._name:
            spent = self.seconds.get(self._name, 0.0) + time.monotonic() - self._since
            self.seconds[self._name] = round(spent, 1)
            self._name = ""


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the demo; the result event carries ``path``, ``bytes`` and all of ``demo.json``."""
    out = Path(job["out"]).absolute()
    if out.exists():
        raise wire.WorkerError(
            "demo.exists",
            f"{out} exists already.",
            "A finished demo is never overwritten.",
            "Remove the folder, or use it as it is.",
            exit_code=2,
        )
    missing = [
        name
        for name in ("torch", "transformers", "tokenizers", "peft")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise wire.WorkerError(
            "engine.lacks-packages",
            f"This engine lacks {', '.join(missing)}.",
            "Making the demo trains a model with transformers and an adapter with PEFT.",
            f"Install {' '.join(missing)} into the engine, or choose another engine.",
        )
    with atomic_folder.whole_folder(out) as folder:
        facts = make(job, folder, out)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"path": str(out), "bytes": size, **facts}


def make(job: dict[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """Write everything below ``folder``, which later becomes ``out``; return what was measured."""
    clock = Clock()
    clock.phase("text")
    texts = gather()
    questions = "\n".join(texts.answers_held_out) + "\n"
    (folder / "heldout.txt").write_text(texts.base_held_out, encoding="utf-8")
    (folder / "heldout_adapter.txt").write_text(questions, encoding="utf-8")

    clock.phase("tokenizer")
    import torch
    from demo_model import tokenizer as demo_tokenizer
    from demo_model import training

    torch.manual_seed(int(job.get("seed", 0)))
    torch.set_num_threads(int(job.get("threads") or min(8, len(os.sched_getaffinity(0)))))
    tokenizer = demo_tokenizer.train(texts.base, VOCABULARY, CONTEXT)
    base_ids = token_stream(tokenizer, texts.base)
    adapter_ids = token_stream(tokenizer, [answer + "\n" for answer in texts.answers])
    # The end token that closes a stream is no part of held-out text.
    held_out = token_stream(tokenizer, [texts.base_held_out])[:-1]
    held_out_questions = token_stream(tokenizer, [questions])[:-1]

    clock.phase("train base")
    model = new_model(tokenizer)
    training.train_base(model, base_ids, int(job.get("base_steps", BASE_STEPS)), report)
    save_rounded(model, folder / "base")
    tokenizer.save_pretrained(folder / "base")

    clock.phase("evaluate")
    measured = {
        "base_on_heldout": training.perplexity(model, held_out),
        "base_on_heldout_adapter": training.perplexity(model, held_out_questions),
    }
    prompt = demo_text.question_and_answer(EXAMPLE)
    example = {"prompt": prompt, "base": generate(model, tokenizer, prompt)}

    clock.phase("train adapter")
    adapted = new_adapter(model, out / "base")
    training.train_adapter(
        adapted, adapter_ids, int(job.get("adapter_steps", ADAPTER_STEPS)), report
    )
    # The vocabulary was not resized, and the base's folder has its name only once all is whole:
    # PEFT is not to look there.
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)

    clock.phase("evaluate")
    measured["adapter_on_heldout_adapter"] = training.perplexity(adapted, held_out_questions)
    measured["adapter_on_heldout"] = training.perplexity(adapted, held_out)
    example["adapter"] = generate(adapted, tokenizer, prompt)
    clock.stop()
    facts = {
        "parameters": adapted.get_base_model().num_parameters()
        - adapted.num_parameters(only_trainable=True),
        "adapter_parameters": adapted.num_parameters(only_trainable=True),
        "tokens": {
            "base_train": len(base_ids),
            "adapter_train": len(adapter_ids),
            "heldout": len(held_out),
            "heldout_adapter": len(held_out_questions),
        },
        "seconds": clock.seconds,
        "perplexity": {name: round(value, 2) for name, value in measured.items()},
        "example": example,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    (folder / "demo.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def gather() -> demo_text.DemoText:
    """The text, or an error that names what this Python lacks."""
    try:
        return demo_text.gather()
    except LookupError as error:
        raise wire.WorkerError(
            "demo.no-text",
            "This Python carries no text to train on.",
            str(error),
            "Use an engine made with a complete CPython (uv and python.org have one).",
        ) from error


def token_stream(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> Any:  # noqa: ANN401
    """All documents as one 1-D tensor of token ids, each followed by the end token."""
    import torch

    end = tokenizer.eos_token_id
    encoded = tokenizer.backend_tokenizer.encode_batch(documents)
    return torch.tensor([token for document in encoded for token in [*document.ids, end]])


def new_model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained Qwen2 of 4.2 million parameters, in float32.

    Every linear layer's input is a multiple of 128 wide, the usual quantization group, and heads
    are 64 wide, which vLLM's attention supports on every device.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_adapter(model: PreTrainedModel, base: Path) -> PeftModel:
    """``model`` with an untrained LoRA adapter that says it belongs to the folder ``base``."""
    from peft import LoraConfig, get_peft_model

    model.name_or_path = str(base)
    config = LoraConfig(
        r=16, lora_alpha=32, task_type="CAUSAL_LM", target_modules=list(LINEAR_LAYERS)
    )
    return get_peft_model(model, config)


def save_rounded(model: PreTrainedModel, folder: Path) -> None:
    """Save ``model`` in bfloat16, and round its own float32 weights to what was saved.

    So the adapter is trained on, and the measurements are made with, the weights of the checkpoint.
    ``model.to(bfloat16)`` alone would round the rotary frequencies too, which no checkpoint holds.
    """
    import torch

    saved = copy.deepcopy(model).to(torch.bfloat16)
    # What a server takes where a request names none: at 1.0 a model this small rambles.
    saved.generation_config.do_sample = True
    saved.generation_config.temperature = TEMPERATURE
    saved.save_pretrained(folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()


def generate(model: Any, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:  # noqa: ANN401
    """What ``model`` writes after ``prompt``: the likeliest token each time."""
    ids = tokenizer(prompt, return_tensors="pt")
    made = model.generate(
        input_ids=ids["input_ids"],
        attention_mask=ids["attention_mask"],
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
    )
    return str(tokenizer.decode(made[0][ids["input_ids"].shape[1] :], skip_special_tokens=True))


def report(done: int, total: int, loss: float) -> None:
    """Pass a training step on as progress."""
    wire.progress(done, total, unit="steps", message=f"loss {loss:.2f}")


def versions() -> dict[str, str]:
    """What made it: the text comes from Python's own library, so its version counts too."""
    import peft
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


if __name__ == "__main__":
    wire.run(main)
