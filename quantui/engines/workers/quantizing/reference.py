"""What the 16-bit model says, kept in a file; and whether a producer reads the model the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    import torch

    from quantizing.job import Job

LIMIT = 0.01
"""The largest relative error of the centred logits that passes."""


def compare(job: Job, model: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """Ask ``model`` the prompts of the job's reference; None where the job has none.

    Gives ``relative_error`` (of the logits less their mean over the vocabulary, as Frobenius norms over
    all prompts) and ``kl`` (of the reference against the model, nats a token). Both are computed in
    float32 whatever the weights are, so that what differs is how the model is read and not how it is
    rounded.

    Raises:
        WorkerError: ``quantize.reads-model-wrongly``.
    """
    if job.reference is None:
        return None
    import transformers
    from peft_merging import logits
    from safetensors.torch import load_file

    kept = load_file(job.reference)
    error = norm = kl = 0.0
    tokens = 0
    for name in sorted(name for name in kept if name.startswith("prompt.")):
        said = kept[name.replace("prompt.", "logprobs.")]
        ours = logits.log_probabilities(model, kept[name].reshape(1, -1))
        if ours.shape != said.shape:
            raise _wrong(
                transformers.__version__, f"It knows {ours.shape[-1]} tokens, not {said.shape[-1]}."
            )
        error += float((centred(ours) - centred(said)).double().square().sum())
        norm += float(centred(said).double().square().sum())
        kl += float((said.exp() * (said - ours)).sum(-1).double().sum())
        tokens += len(said)
    found = {"relative_error": (error / norm) ** 0.5, "kl": max(0.0, kl / tokens)}
    # A NaN is no pass either.
    if not found["relative_error"] <= LIMIT:
        raise _wrong(
            transformers.__version__,
            f"Its logits differ from the 16-bit model's by {found['relative_error']:.1%} "
            f"(KL {found['kl']:.2g} nats a token); rounding alone stays below {LIMIT:.0%}.",
        )
    return found


def centred(logits: torch.Tensor) -> torch.Tensor:
    """``logits`` or log-probabilities less their mean over the vocabulary, which makes them the same."""
    return logits - logits.mean(-1, keepdim=True)


def _wrong(version: str, why: str) -> WorkerError:
    return WorkerError(
        "quantize.reads-model-wrongly",
        f"The producer's transformers {version} reads this model wrongly.",
        why,
        "A library from before the model ignores settings it does not know (rope_parameters, for one). "
        "Choose another producer, or an engine with a newer transformers.",
        exit_code=4,
    )
