"""The English that the demo model is trained and judged on: what every CPython carries, and tiny tales.

- **documentation**: the language reference behind ``help("assert")`` (``pydoc_data.topics``, about
  370 KB without its repeated paragraphs), the domain of the base model. It differs a little between
  Python versions (checked: 3.11, 3.12, 3.13); nothing here depends on which;
- **tales** (see :mod:`.tales`): a request and a tale from a small grammar, the domain of the adapter.

The two do not overlap, and the held-out part of each is never trained on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from demo_model.tales import tales

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_CHARACTERS = 1500
"""Held-out text is cut in whole blocks of paragraphs of about this size: it reads as prose."""

HELD_OUT_EVERY = 14
"""Each 14th block, and each 14th tale, is held out: about 7 %."""

TALES = 2400
"""The adapter's training reads about nine tenths of them, once."""


@dataclass(frozen=True)
class DemoText:
    """Documents to train on, and the text held out of each domain."""

    base: list[str]
    base_held_out: str
    answers: list[str]
    answers_held_out: list[str]


def question_and_answer(question: str, answer: str = "") -> str:
    """The form the adapter is taught, and what the demo tokenizer's chat template renders."""
    return f"Question: {question}\nAnswer:" + (f" {answer}" if answer else "")


def gather() -> DemoText:
    """Read the documentation, tell the tales, and split both.

    Raises:
        LookupError: this Python was installed without its documentation.
    """
    train, held_out = _documentation()
    answers = [question_and_answer(*tale) for tale in dict.fromkeys(islice(tales(), TALES))]
    return DemoText(
        base=train,
        base_held_out="\n\n".join(held_out) + "\n",
        answers=[text for n, text in enumerate(answers) if n % HELD_OUT_EVERY],
        answers_held_out=[text for n, text in enumerate(answers) if n % HELD_OUT_EVERY == 0],
    )


def _documentation() -> tuple[list[str], list[str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise LookupError("this Python carries no pydoc_data.topics") from error
    seen: set[str] = set()
    train: list[str] = []
    held_out: list[str] = []
    block_number = 0
    for name in sorted(topics):
        kept: list[str] = []
        for block in _blocks(topics[name], seen):
            block_number += 1
            (held_out if block_number % HELD_OUT_EVERY == 0 else kept).append(block)
        if kept:
            train.append("\n\n".join(kept) + "\n")
    return train, held_out


def _blocks(topic: str, seen: set[str]) -> Iterator[str]:
    """Paragraphs not ``seen`` before, gathered into blocks: topics quote one another at length."""
    block: list[str] = []
    for paragraph in re.split(r"\n\s*\n", topic.strip("\n")):
        key = " ".join(paragraph.split())
        if not key or key in seen:
            continue
        seen.add(key)
        block.append(paragraph)
        if sum(map(len, block)) >= BLOCK_CHARACTERS:
            yield "\n\n".join(block)
            block = []
    if block:
        yield "\n\n".join(block)
