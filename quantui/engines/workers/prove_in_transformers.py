"""Worker: prove with transformers that a quantized checkpoint loads, answers and predicts text.

For formats that vLLM does not run on this machine. Job: ``model`` (folder), and optionally ``reference``
(file of ``measure_model.py``), ``text``, ``tokens``, ``device``, ``trust_remote_code`` and
``memory_limit_bytes``. The model is loaded in a process of its own.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import quantizing  # noqa: F401 - found before quantui_wire takes this folder off sys.path
import quantui_wire as wire
from quantizing import producing, proving

if TYPE_CHECKING:
    import torch

NEEDS = ("torch", "transformers", "safetensors")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load and measure."""
    producing.refuse_missing(NEEDS)
    if not job.get(proving.INSIDE):
        return proving.in_a_child(job, "prove_in_transformers.py")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    device = job.get("device") or "cpu"
    with producing.foreseeable(device):
        return prove(job)


def prove(job: dict[str, Any]) -> dict[str, Any]:
    """The result for ``job``.

    Raises:
        WorkerError: ``prove.does-not-load``, ``prove.not-finite``, ``quantize.not-enough-memory``.
    """
    import transformers
    from quantizing import quantized, reference
    from quantizing.held_out import Perplexity

    asked = proving.question(job)
    wire.phase("load")
    began = time.monotonic()
    model = quantized.load(asked.model)
    loaded = time.monotonic()
    wire.phase("measure")
    measured, total, done = Perplexity(), sum(map(len, asked.windows)), 0
    for window in asked.windows:
        measured.add(likelihoods(job, model, window))
        done += len(window)
        wire.progress(done, total, unit="tokens", message="perplexity")
    proving.refuse_broken(job, measured)
    best = [answers(job, model, ids).argmax(-1).tolist() for ids in asked.prompts]
    return {
        "runtime": f"transformers {transformers.__version__} ({'GPU' if asked.model.on_gpu else 'CPU'})",
        "perplexity": measured.value,
        "tokens": measured.tokens,
        "finite": True,
        "agreement": reference.agreement(asked.reference, best) if asked.reference else None,
        "seconds": round(time.monotonic() - began, 2),
        "load_seconds": round(loaded - began, 2),
        "peak_rss_bytes": producing.peak_rss_bytes(),
        "weight_bytes": int(model.get_memory_footprint()),
    }


def answers(job: dict[str, Any], model: Any, ids: list[int]) -> torch.Tensor:  # noqa: ANN401
    """Log-probabilities after each of ``ids``, as the quantized layers compute them."""
    import torch

    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits
    except Exception as error:
        if producing.is_about_resources(error):
            raise
        raise proving.does_not_load(job["model"], proving.cause(error)) from error
    return torch.log_softmax(logits[0].float(), dim=-1).cpu()


def likelihoods(job: dict[str, Any], model: Any, ids: list[int]) -> list[float]:  # noqa: ANN401
    """Log-likelihoods of ``ids`` but the first."""
    import torch

    said = answers(job, model, ids)[:-1]
    found: list[float] = said.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    return found


if __name__ == "__main__":
    wire.run(main)
