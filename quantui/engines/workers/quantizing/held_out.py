"""Held-out text: the tokens that perplexity is measured on, and its sum over windows.

Every runtime that measures takes the same token ids in the same windows, so that what differs is the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError
from streaming_merge.checkpoint import read_config

from quantizing.calibration import builtin, first_tokens, sources, windows

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW = 512
"""Tokens of a window, as the check of a served model takes them."""

LONGEST_TOKEN = 64
"""Characters of text that are tokenized for each token wanted: a file of gigabytes costs no more."""

BUILT_IN = "builtin"
"""What the built-in text is called where a path would stand."""


@dataclass(frozen=True)
class HeldOut:
    """``ids``: windows of ``window`` tokens one after another, the last perhaps shorter."""

    ids: list[int]
    window: int
    text: str

    def windows(self, tokens: int | None = None) -> list[list[int]]:
        """The windows of the first ``tokens`` tokens; those with nothing to predict are left out."""
        ids = self.ids[:tokens]
        parts = [ids[start : start + self.window] for start in range(0, len(ids), self.window)]
        return [part for part in parts if len(part) > 1]


def held_out(model: Path, tokenizer: Any, text: str | None, tokens: int) -> HeldOut:  # noqa: ANN401
    """The first ``tokens`` tokens of the file ``text``, or of the built-in text (None).

    Each window begins with the token that the tokenizer begins every text with, where it has one: models
    that were trained so (Gemma) make nothing of a text that begins otherwise.

    Raises:
        WorkerError: ``proof.bad-text``, ``proof.text-too-short``, ``calibration.not-utf8``,
            ``calibration.no-builtin``.
    """
    written = builtin.held_out() if text is None else _read(text)
    prefix = first_tokens(tokenizer)
    size = min(WINDOW, context(model) - 1)
    written = written[: LONGEST_TOKEN * tokens]
    ids = list(tokenizer(written, add_special_tokens=False)["input_ids"])
    parts = windows.running(ids, size, prefix)
    found = HeldOut([token for part in parts for token in part][:tokens], size, text or BUILT_IN)
    if not found.windows() or len(found.ids) < windows.SHORTEST:
        raise WorkerError(
            "proof.text-too-short",
            f"{found.text} is too short to measure perplexity on: it has {len(ids)} tokens.",
            fix="Give a longer text; 4,000 tokens are usual.",
            exit_code=2,
        )
    return found


def context(model: Path) -> int:
    """Tokens of the model's context by its config; where that does not say, more than a window has."""
    config = read_config(model)
    inner = config.get("text_config")
    for part in (inner if isinstance(inner, dict) else config, config):
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            size = part.get(name)
            if isinstance(size, int) and size >= 2 * windows.SHORTEST:
                return size
    return 1 << 20


def _read(text: str) -> str:
    try:
        return sources.text_of(Path(text).expanduser())
    except OSError as error:
        raise WorkerError(
            "proof.bad-text",
            f"The text to measure on, {text}, could not be read.",
            error.strerror or str(error),
            "Give a text file in UTF-8.",
            exit_code=2,
        ) from error


@dataclass
class Perplexity:
    """exp of the mean negative log-likelihood; the first token of a window is never predicted."""

    total: float = 0.0
    tokens: int = 0

    def add(self, log_likelihoods: Iterable[float]) -> None:
        """Count one window's log-likelihoods, in nats, of its tokens but the first."""
        for value in log_likelihoods:
            self.total -= value
            self.tokens += 1

    @property
    def finite(self) -> bool:
        """Whether every log-likelihood was a number."""
        return math.isfinite(self.total)

    @property
    def value(self) -> float:
        """The perplexity; infinite past what a float can hold, NaN where a log-likelihood is none."""
        mean = self.total / self.tokens
        return math.exp(mean) if not mean >= 700 else math.inf
