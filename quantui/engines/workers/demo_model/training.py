"""Train a few million parameters on two CPU cores in a minute or two, and measure perplexity.

The base trains with Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/) on the matrices
of its layers and AdamW on the rest: after 200 steps of 1,024 tokens it is further than AdamW alone
after 440 (perplexity 112 and 139). The iteration is written out here because torch's own runs in
bfloat16, which a CPU without bfloat16 units only emulates, and takes one matrix at a time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[int, int, float], None]
    """Called after each step with steps done, steps in all and the loss in nats a token."""

SEQUENCE = 256
"""Tokens in a training sequence, and in a window of the perplexity measurement."""

BATCH = 4
"""Sequences in a step."""


class Muon(torch.optim.Optimizer):
    """Momentum whose update is brought near to an orthogonal matrix; for 2-D weights only.

    ``lr`` is comparable to AdamW's: the update is scaled to its usual size (Liu et al. 2025,
    arXiv:2502.16982, 0.2 times the square root of the longer side).
    """

    def __init__(
        self,
        params: list[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Apply one update; matrices of one shape are orthogonalized together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                directions = []
                for parameter in parameters:
                    buffer = self.state[parameter].setdefault(
                        "momentum", torch.zeros_like(parameter)
                    )
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    directions.append(parameter.grad.lerp(buffer, group["momentum"]))
                updates = _orthogonal(torch.stack(directions)) * (0.2 * max(shape) ** 0.5)
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"])


def _orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps towards the orthogonal factor of each matrix in the stack ``x``."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def train_base(model: torch.nn.Module, ids: torch.Tensor, steps: int, report: Report) -> None:
    """Train every weight of a fresh causal LM on the token stream ``ids``."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=0.01, weight_decay=0.1),
        torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    _train(model, ids, steps, optimizers, report)


def train_adapter(model: torch.nn.Module, ids: torch.Tensor, steps: int, report: Report) -> None:
    """Train the parameters that PEFT left trainable on the token stream ``ids``."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trainable, lr=0.008, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    _train(model, ids, steps, [adamw], report)


def _train(
    model: torch.nn.Module,
    ids: torch.Tensor,
    steps: int,
    optimizers: list[torch.optim.Optimizer],
    report: Report,
) -> None:
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    trainable = [p for p in model.parameters() if p.requires_grad]
    windows = _windows(ids)
    model.train()
    for step in range(steps):
        share = _schedule(step, steps)
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
        batch = torch.stack([next(windows) for _ in range(BATCH)])
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        report(step + 1, steps, loss.item())
    model.eval()


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate: up in 30 steps (or a tenth), level, then down to zero."""
    warm_up = min(1.0, (step + 1) / max(1, min(30, steps // 10)))
    return warm_up * min(1.0, (steps - step) / (0.7 * steps))


def _windows(ids: torch.Tensor) -> Iterator[torch.Tensor]:
    """Sequences of ``SEQUENCE + 1`` tokens, endless; each pass is shuffled and cut elsewhere."""
    generator = torch.Generator().manual_seed(0)
    while True:
        offset = int(torch.randint(0, SEQUENCE, (1,), generator=generator))
        starts = torch.arange(offset, len(ids) - SEQUENCE - 1, SEQUENCE)
        for start in starts[torch.randperm(len(starts), generator=generator)]:
            yield ids[start : start + SEQUENCE + 1]


@torch.no_grad()
def perplexity(model: torch.nn.Module, ids: torch.Tensor) -> float:
    """Perplexity a token over ``ids`` in separate windows of ``SEQUENCE`` tokens, without overlap.

    The first token of a window is context only. Logits are taken to float32.
    """
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, SEQUENCE):
        window = ids[start : start + SEQUENCE + 1]
        logits = model(input_ids=window[None, :-1], use_cache=False).logits[0].float()
        total += cross_entropy(logits, window[1:], reduction="sum").item()
        count += len(window) - 1
    return math.exp(total / count)
