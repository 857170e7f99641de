"""What the 16-bit model says, kept in a file; and whether a producer reads the model the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

from quantizing.held_out import BUILT_IN, HeldOut

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from quantizing.job import Job

LIMIT = 0.005
"""The largest relative error of the centred logits that passes.

Measured with transformers 5.19 and torch 2.13 on prompts of 16 to 48 tokens. A model that is read rightly
gives exactly 0 on the machine that measured the reference: 19 bfloat16 checkpoints, among them Llama, Qwen2,
Qwen3 and its experts, Mixtral, Gemma 2 and 3, Phi-3, GPT-2, gpt-oss and two vision models; that their arithmetic
is float32 matters, in bfloat16 it is 0.004 to 0.025. Read wrongly (a trained Qwen2 of 4 million parameters; random
Llama, Qwen3 and Gemma 2): rope_theta 1e6 taken for 1e4, 0.10; 0.32 to 0.85. Linear scaling by 2 lost, 0.12; 0.33 to
0.90. Yarn by 4 lost, 0.04; 0.18 to 0.47. Another activation, 0.03; 0.13 to 0.28. The norms of one layer swapped,
0.016. rms_norm_eps 1e-3 for 1e-6, 0.07; 0.002 to 0.24. Too small to be seen: rms_norm_eps 1e-5 for 1e-6, 1e-5 to
0.0025; and, in part, Llama 3's scaling of contexts beyond 8192 tokens, which hardly matters in so few: 0.0006 to
0.013.
"""


@dataclass(frozen=True)
class Reference:
    """``prompts``: token ids; ``logprobs``: float32 [tokens, vocabulary] for each, after every token."""

    prompts: list[torch.Tensor]
    logprobs: list[torch.Tensor]
    held_out: HeldOut


def write(path: Path, reference: Reference) -> None:
    """Keep ``reference`` in the safetensors file ``path``, which is whole or absent."""
    import torch
    from safetensors.torch import save_file

    tensors = {"heldout": torch.tensor(reference.held_out.ids, dtype=torch.int64)}
    pairs = zip(reference.prompts, reference.logprobs, strict=True)
    for number, (ids, logprobs) in enumerate(pairs):
        tensors[f"prompt.{number}"] = ids.to(torch.int64)
        tensors[f"logprobs.{number}"] = logprobs.float().contiguous()
    facts = {"window": str(reference.held_out.window), "text": reference.held_out.text}
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, partial, metadata=facts)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> Reference:
    """What :func:`write` kept.

    Raises:
        WorkerError: ``quantize.bad-reference``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as kept:
            facts = kept.metadata() or {}
            count = sum(name.startswith("prompt.") for name in kept.keys())  # noqa: SIM118
            return Reference(
                [kept.get_tensor(f"prompt.{number}") for number in range(count)],
                [kept.get_tensor(f"logprobs.{number}") for number in range(count)],
                HeldOut(
                    kept.get_tensor("heldout").tolist(),
                    int(facts["window"]),
                    facts.get("text", BUILT_IN),
                ),
            )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WorkerError(
            "quantize.bad-reference",
            f"{path} does not hold what the 16-bit model says.",
            f"{type(error).__name__}: {error}"[:300],
            "Remove the file; it is measured again.",
        ) from error


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

    kept = read(job.reference)
    error = norm = kl = 0.0
    tokens = 0
    for ids, said in zip(kept.prompts, kept.logprobs, strict=True):
        ours = logits.log_probabilities(model, ids.reshape(1, -1))
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
            f"(KL {found['kl']:.2g} nats a token). In float32 they are the same, but for {LIMIT:.1%} at most.",
        )
    return found


def agreement(reference: Reference, best: list[list[int]]) -> float:
    """Share of tokens after which ``best`` (a list a prompt) is what the reference finds likeliest too.

    A runtime that says nothing of what follows the last token gives a list that is shorter by one.
    """
    theirs = [logprobs.argmax(-1).tolist() for logprobs in reference.logprobs]
    pairs = [
        pair
        for ours, said in zip(best, theirs, strict=True)
        for pair in zip(ours, said, strict=False)
    ]
    same = sum(one == other for one, other in pairs)
    return float(same / len(pairs))


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
