"""Compare what the merged model says with what base and unmerged adapter say.

The measure is the Kullback-Leibler divergence of the next-token distributions: of the merged model
against base+adapter, beside that of the bare base, which tells how much the adapter changes at all.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streaming_merge.refusals import proof_failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch

PROMPTS = (
    "Question: What is the capital of France, and which river runs through it?\nAnswer:",
    "The history of computing begins long before the first electronic machines. In 1837",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
)
"""Used when the job names none."""

LONGEST = 128
"""Tokens of a prompt that are used."""

SHARE = 0.05
"""KL(merged || base+adapter) may be at most this share of KL(base || base+adapter)."""

NOISE = 1e-6
"""Nats a token that float32 arithmetic in another order makes."""


@dataclass(frozen=True)
class Reference:
    """Log-probabilities (float32, one [tokens, vocabulary] tensor a prompt) before the merge."""

    ids: list[torch.Tensor]
    adapted: list[torch.Tensor]
    base_divergence: float


def prompt_ids(folder: Path, prompts: Sequence[str], vocabulary: int) -> list[torch.Tensor]:
    """Token ids of ``prompts`` by the tokenizer in ``folder``; without one, fixed random ids."""
    import torch
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ids = [tokenizer(prompt)["input_ids"][:LONGEST] for prompt in prompts or PROMPTS]
    except (OSError, ValueError, KeyError, TypeError):
        ids = []
    found = [torch.tensor(row)[None] for row in ids if row and max(row) < vocabulary]
    if found:
        return found
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocabulary, (1, 32), generator=generator) for _ in range(3)]


def answers(model: Any, ids: list[torch.Tensor]) -> list[torch.Tensor]:  # noqa: ANN401
    """Log-probabilities after each token of each of ``ids``."""
    return [log_probabilities(model, row) for row in ids]


def reference(wrapped: Any, ids: list[torch.Tensor], base: list[torch.Tensor]) -> Reference:  # noqa: ANN401
    """What base+adapter, unmerged, says to ``ids``, and how far ``base``, the bare one's answers, is.

    ``base`` is asked before the adapter is attached: with PEFT's adapter switched off, trained biases
    stay, and so does what an initialization took from the base.
    """
    adapted = answers(wrapped, ids)
    return Reference(ids, adapted, _divergence(base, adapted))


def compare(model: Any, before: Reference) -> dict[str, Any]:  # noqa: ANN401
    """The proof's part about logits; ``passed`` says whether it holds.

    Raises:
        WorkerError: ``merge.proof-failed``: the vocabularies differ.
    """
    merged = answers(model, before.ids)
    ours, theirs = merged[0].shape[-1], before.adapted[0].shape[-1]
    if ours != theirs:
        raise proof_failed(f"It knows {ours} tokens, and base and adapter {theirs}.")
    divergence = _divergence(merged, before.adapted)
    agreeing = sum(
        int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        for ours, theirs in zip(merged, before.adapted, strict=True)
    )
    largest = max(
        float((ours - theirs).abs().max())
        for ours, theirs in zip(merged, before.adapted, strict=True)
    )
    tokens = sum(len(row) for row in merged)
    return {
        "kl_merged": divergence,
        "kl_base": before.base_divergence,
        "top1_agreement": agreeing / tokens,
        "max_logprob_difference": largest,
        "tokens": tokens,
        "passed": divergence <= SHARE * before.base_divergence + NOISE,
    }


def log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Log-probabilities after each token of ``ids``, computed in float32 whatever the weights are."""
    import torch

    with torch.no_grad(), _in_float32(model):
        device = next(model.parameters()).device
        logits = model(input_ids=ids.to(device), use_cache=False).logits
    return torch.log_softmax(logits[0].float(), dim=-1).cpu()


@contextmanager
def _in_float32(model: Any) -> Iterator[None]:  # noqa: ANN401
    """Let ``model`` compute in float32 while its weights stay as they are.

    Each layer's weights are widened while it runs: the model at float32 would not fit where the model
    does, and bfloat16 activations alone differ more between merged and unmerged than a small adapter
    changes.
    """
    import torch

    narrow: dict[int, dict[str, torch.Tensor]] = {}

    def widen(module: torch.nn.Module, _: Any) -> None:  # noqa: ANN401
        narrow[id(module)] = {}
        for name, parameter in _used_by(module).named_parameters(recurse=False):
            if parameter.is_floating_point() and parameter.dtype != torch.float32:
                narrow[id(module)][name] = parameter.data
                parameter.data = parameter.data.float()

    def restore(module: torch.nn.Module, _: Any, output: Any) -> Any:  # noqa: ANN401
        for name, data in narrow.pop(id(module)).items():
            getattr(_used_by(module), name).data = data
        return output

    def widen_output(_: torch.nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        return output.float()

    hooks = []
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            # Rows are looked up, not multiplied: widening what comes out gives the same.
            hooks.append(module.register_forward_hook(widen_output))
        elif next(_used_by(module).parameters(recurse=False), None) is not None:
            hooks.append(module.register_forward_pre_hook(widen))
            hooks.append(module.register_forward_hook(restore))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _used_by(module: torch.nn.Module) -> torch.nn.Module:
    """The module whose own parameters ``module`` computes with.

    PEFT's layers reach into the layer they wrap, past its forward method: for the experts that
    ``target_parameters`` names, for trained tokens, and for DoRA's norms.
    """
    base_layer = getattr(module, "get_base_layer", None)
    return base_layer() if callable(base_layer) else module


def _divergence(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Mean KL(ours || theirs) in nats a token."""
    total = sum(
        float((one.exp() * (one - other)).sum(-1).clamp_min(0).double().sum())
        for one, other in zip(ours, theirs, strict=True)
    )
    return total / sum(len(one) for one in ours)
