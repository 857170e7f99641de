"""Scaling and rotating weights must not change what a model says: ask it before and after.

Smoothing (AWQ, SmoothQuant) and rotations move numbers from one layer into the next. Where a model is
wired otherwise than the library believes, the result is another model, which only shows afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    import torch
    from quantizing.job import Job

LIMITS = {"float32": 0.01, "16 bit": 0.05}
"""The largest relative error of the centred logits, by the dtype that the weights are kept in between.

Exact in theory. Measured in float32: 6e-7 to 6e-6 on nine tiny models of seven architectures, 0.2 and more
where a mapping was wrong (Mixtral, Gemma 3, StableLM). In 16 bit, where each weight is rounded once
more: 0.001 to 0.013."""


@dataclass(frozen=True)
class Said:
    """Prompts as token ids, and log-probabilities after each token of each."""

    ids: list[torch.Tensor]
    answers: list[torch.Tensor]


def ask(job: Job, model: Any) -> Said:  # noqa: ANN401
    """What ``model`` says now."""
    from peft_merging import logits

    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = logits.prompt_ids(job.model, (), vocabulary)
    return Said(ids, [_answer(job, model, row) for row in ids])


def _answer(job: Job, model: Any, ids: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Log-probabilities after each token of ``ids``: in float32, but on a card in the model's own dtype.

    There the layers wait in RAM and come to the card one by one, each as it is stored.
    """
    import torch
    from compressed_tensors.utils import get_execution_device
    from peft_merging import logits

    if not job.on_gpu:
        return logits.log_probabilities(model, ids)
    with torch.no_grad():
        place = get_execution_device(model.get_input_embeddings())
        said = model(input_ids=ids.to(place), use_cache=False).logits
    return torch.log_softmax(said[0].float(), dim=-1).cpu()


def refuse_changed(job: Job, before: Said, model: Any, what: str, wide: str) -> float:  # noqa: ANN401
    """The relative error of what ``model`` says now, after ``what`` was done to it.

    Raises:
        WorkerError: ``quantize.changes-model``.
    """
    from quantizing.reference import centred

    error = norm = 0.0
    for ids, said in zip(before.ids, before.answers, strict=True):
        now = _answer(job, model, ids)
        error += float((centred(now) - centred(said)).double().square().sum())
        norm += float(centred(said).double().square().sum())
    found = float((error / norm) ** 0.5)
    # A NaN is no pass either.
    if not found <= LIMITS[wide]:
        raise WorkerError(
            "quantize.changes-model",
            f"{what} changes what {type(model).__name__} says by {found:.1%}, before anything is rounded.",
            "llm-compressor takes its layers to be wired otherwise than they are.",
            "Choose a method that leaves the weights where they are: gptq, w4a16, fp8_dynamic or autoround.",
            exit_code=3,
        )
    return found
