"""Worker: what a 16-bit model says, for those that quantize it to be compared with.

Job: ``model`` (folder), ``out`` (file to write), and optionally ``text`` (path; null: the built-in held-out
text), ``tokens`` (4096), ``device`` (``cpu`` or ``cuda:0``), ``trust_remote_code`` and
``memory_limit_bytes``.

``out`` holds log-probabilities after every token of three short prompts, and the token ids that perplexity
is measured on (see ``quantizing.reference``). All arithmetic is float32: in memory too where that fits,
else each layer's weights are widened while it runs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quantizing  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import quantui_wire as wire
from quantizing import producing
from quantizing.job import ModelJob

if TYPE_CHECKING:
    import torch
    from quantizing.held_out import HeldOut, Perplexity

NEEDS = ("torch", "transformers", "safetensors")
PROMPT_TOKENS = 48
"""Tokens of a prompt that are kept: a vocabulary of 150,000 makes 29 MB of them."""

COPIES = 4
"""Copies of a window's logits that are in memory at once."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load, ask, measure, keep."""
    began = time.monotonic()
    producing.refuse_missing(NEEDS)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    asked = ModelJob.read(job)
    with producing.foreseeable(asked.device):
        measured, text = measure(asked, job)
    return {
        "path": str(job["out"]),
        "perplexity": measured.value,
        "tokens": measured.tokens,
        "text": text,
        "seconds": round(time.monotonic() - began, 2),
        "peak_rss_bytes": producing.peak_rss_bytes(),
        "versions": producing.versions(NEEDS),
    }


def measure(asked: ModelJob, job: dict[str, Any]) -> tuple[Perplexity, str]:
    """The perplexity, and the text it was measured on; the reference is written to the job's ``out``."""
    from peft_merging import logits
    from quantizing import held_out, models, proving, reference

    wire.phase("load")
    tokenizer = models.load_tokenizer(asked)
    tokens = int(job.get("tokens") or proving.TOKENS)
    text = held_out.held_out(asked.model, tokenizer, job.get("text"), tokens)
    model = models.load_model(asked, dtype=dtype_that_fits(asked))
    wire.phase("ask")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = [row[:, :PROMPT_TOKENS] for row in logits.prompt_ids(asked.model, (), vocabulary)]
    said = logits.answers(model, ids)
    wire.phase("measure")
    measured = perplexity(model, text)
    if not measured.finite or not all(bool(one.isfinite().all()) for one in said):
        raise wire.WorkerError(
            "quantize.base-not-finite",
            f"{asked.model} answers with NaN or infinity.",
            "The model is broken before it is quantized.",
            "Use an earlier checkpoint, or look at how it was merged.",
            exit_code=2,
        )
    kept = reference.Reference([row[0] for row in ids], said, text)
    reference.write(Path(job["out"]), kept)
    return measured, text.text


def perplexity(model: Any, text: HeldOut) -> Perplexity:  # noqa: ANN401
    """The perplexity of ``text`` in separate windows."""
    import torch
    from peft_merging import logits
    from quantizing.held_out import Perplexity

    measured, windows = Perplexity(), text.windows()
    total = sum(map(len, windows))
    done = 0
    for window in windows:
        ids = torch.tensor([window])
        measured.add(likelihoods(logits.log_probabilities(model, ids), ids[0]))
        done += len(window)
        wire.progress(done, total, unit="tokens", message="perplexity")
    return measured


def likelihoods(logprobs: torch.Tensor, ids: torch.Tensor) -> list[float]:
    """Log-likelihoods of ``ids`` but the first, from [tokens, vocabulary] log-probabilities after each."""
    found: list[float] = logprobs[:-1].gather(1, ids[1:, None])[:, 0].tolist()
    return found


def dtype_that_fits(asked: ModelJob) -> str:
    """``float32`` where the model fits into memory so, else ``auto``.

    Raises:
        WorkerError: ``quantize.not-enough-memory``: it fits in no way.
    """
    from quantizing import held_out, models
    from streaming_merge.checkpoint import read_checkpoint

    source = read_checkpoint(asked.model)
    elements = sum(tensor.rows * tensor.columns for tensor in source.tensors.values())
    inner = source.config.get("text_config")
    vocabulary = int((inner if isinstance(inner, dict) else source.config).get("vocab_size") or 0)
    # In RAM whatever the device: answers are taken there.
    answers = 4 * vocabulary * held_out.WINDOW * COPIES
    widened = 4 * max(tensor.rows * tensor.columns for tensor in source.tensors.values())
    try:
        models.check_memory(asked, 4 * elements + answers, "Measuring the model in float32")
    except wire.WorkerError:
        models.check_memory(asked, source.bytes + widened + answers, "Measuring the 16-bit model")
        return "auto"
    return "float32"


if __name__ == "__main__":
    wire.run(main)
