"""Worker: prove with onnxruntime-genai that an ONNX model loads, generates and predicts text.

Job: ``model`` (folder), and optionally ``reference`` (file of ``measure_model.py``), ``text``, ``tokens``,
``trust_remote_code`` and ``memory_limit_bytes``. The model is loaded in a process of its own.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import quantizing  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import quantui_wire as wire
from quantizing import producing, proving

if TYPE_CHECKING:
    from pathlib import Path

    import torch

NEEDS = ("onnxruntime_genai", "torch", "transformers", "safetensors")

GENERATED = 8
"""Tokens that the model has to generate."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load and measure."""
    producing.refuse_missing(NEEDS)
    if not job.get(proving.INSIDE):
        return proving.in_a_child(job, "prove_in_onnxruntime.py")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with producing.foreseeable("cpu"):
        return prove(job)


def prove(job: dict[str, Any]) -> dict[str, Any]:
    """The result for ``job``.

    Raises:
        WorkerError: ``prove.does-not-load``, ``prove.not-finite``, ``quantize.not-enough-memory``.
    """
    import onnxruntime_genai
    from quantizing import models, reference
    from quantizing.held_out import Perplexity

    asked = proving.question(job)
    folder = asked.model.model
    size = weight_bytes(folder)
    models.check_memory(asked.model, size, "Loading the ONNX model")
    wire.phase("load")
    began = time.monotonic()
    with loading(job):
        model = onnxruntime_genai.Model(str(folder))
        generate(model, asked.windows[0])
    loaded = time.monotonic()
    wire.phase("measure")
    measured, total, done = Perplexity(), sum(map(len, asked.windows)), 0
    with loading(job):
        for window in asked.windows:
            measured.add(likelihoods(answers(model, window), window))
            done += len(window)
            wire.progress(done, total, unit="tokens", message="perplexity")
        proving.refuse_broken(job, measured)
        best = [answers(model, ids).argmax(-1).tolist() for ids in asked.prompts]
    return {
        "runtime": f"ONNX Runtime GenAI {onnxruntime_genai.__version__} (CPU)",
        "perplexity": measured.value,
        "tokens": measured.tokens,
        "finite": True,
        "agreement": reference.agreement(asked.reference, best) if asked.reference else None,
        "seconds": round(time.monotonic() - began, 2),
        "load_seconds": round(loaded - began, 2),
        "peak_rss_bytes": producing.peak_rss_bytes(),
        "weight_bytes": size,
    }


class loading:  # noqa: N801 - a context manager is named like a function
    """What the runtime raises inside the block means that it does not take this model."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, wire.WorkerError):
            return
        if not producing.is_about_resources(error):
            raise proving.does_not_load(self._job["model"], proving.cause(error)) from error


def weight_bytes(folder: Path) -> int:
    """Bytes of the graph and its data."""
    return sum(file.stat().st_size for file in folder.glob("*.onnx*"))


def generator(model: Any, ids: list[int], more: int) -> Any:  # noqa: ANN401 - no stubs
    """A greedy generator that has read ``ids`` and has room for ``more`` tokens."""
    import onnxruntime_genai

    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(ids) + more, do_sample=False)
    made = onnxruntime_genai.Generator(model, parameters)
    made.append_tokens(ids)
    return made


def generate(model: Any, ids: list[int]) -> None:  # noqa: ANN401
    """Generate some tokens after the beginning of ``ids``, token by token as a server does.

    Raises:
        ValueError: Nothing came of it.
    """
    start = ids[:GENERATED]
    made = generator(model, start, GENERATED)
    while not made.is_done():
        made.generate_next_token()
    if len(made.get_sequence(0)) <= len(start):
        message = "it generates nothing"
        raise ValueError(message)


def answers(model: Any, ids: list[int]) -> torch.Tensor:  # noqa: ANN401
    """Log-probabilities [tokens, vocabulary] after each of ``ids``."""
    import torch

    logits = generator(model, ids, 1).get_output("logits")
    return torch.log_softmax(torch.from_numpy(logits)[0].float(), dim=-1)


def likelihoods(logprobs: torch.Tensor, ids: list[int]) -> list[float]:
    """Log-likelihoods of ``ids`` but the first, from [tokens, vocabulary] log-probabilities after each."""
    import torch

    found: list[float] = logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    return found


if __name__ == "__main__":
    wire.run(main)
