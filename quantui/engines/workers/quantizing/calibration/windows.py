"""Cut and join tokenized texts into samples of one length. Pure: token ids in, token ids out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SHORTEST = 16
"""Tokens of the shortest text that is a sample of its own: in fewer there is next to no context."""

_LOOKED_AT = 4
"""Texts looked at for each sample wanted, to learn how long they are."""


@dataclass
class Cutting:
    """Samples and what became of the texts: tokens of the longest one that was cut, samples joined of
    several texts, texts left over because even together they are too short.
    """

    samples: list[list[int]] = field(default_factory=list)
    longest_cut: int = 0
    cut: int = 0
    joined: int = 0
    too_short: int = 0


def running(ids: Sequence[int], length: int, prefix: Sequence[int]) -> list[list[int]]:
    """A running text in pieces of ``length`` tokens, each beginning with ``prefix``."""
    step = length - len(prefix)
    return [[*prefix, *ids[start : start + step]] for start in range(0, len(ids), step)]


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers below ``count`` in the order of ``seed``."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def cut_and_join(
    texts: Iterable[list[int]], count: int, samples: int, length: int, prefix: Sequence[int] = ()
) -> Cutting:
    """``samples`` samples of at most ``length`` tokens from ``count`` tokenized ``texts``, read as needed.

    A text longer than ``length`` is cut, as llm-compressor's guides do (``truncation=True``); the rest of it
    is used only when there would be too few samples. Texts are joined, as AutoAWQ does with all, where
    there are more than samples wanted and they would not fill their windows, and where one is below
    :data:`SHORTEST`. ``prefix``, which begins texts, is dropped from all but the first of those joined.
    """
    found = Cutting()
    source = iter(texts)
    opening = list(prefix)
    looked_at: list[list[int]] = []
    for ids in source:
        looked_at.append(ids)
        if len(looked_at) >= _LOOKED_AT * samples:
            break
    mean = sum(min(len(ids), length) for ids in looked_at) / max(1, len(looked_at))
    # What fills `samples` samples evenly with all there is, up to the length.
    aim = min(length, max(SHORTEST, int(mean * count / samples))) if count > samples else SHORTEST
    rests: list[list[int]] = []
    current: list[int] = []
    parts = 0

    def close() -> None:
        nonlocal current, parts
        if len(current) >= SHORTEST:
            found.samples.append(current)
            found.joined += parts > 1
        else:
            found.too_short += parts
        current, parts = [], 0

    for ids in _chain(looked_at, source):
        if len(found.samples) >= samples:
            break
        if len(ids) > length:
            found.cut += 1
            found.longest_cut = max(found.longest_cut, len(ids))
            rests += running(ids[length:], length, opening)
            found.samples.append(ids[:length])
            continue
        begins = bool(opening) and ids[: len(opening)] == opening
        rest = ids[len(opening) :] if begins else ids
        fits = len(current) + len(rest) <= length
        # Two halves are better joined than apart, but a text is not cut to fill a window.
        if current and (len(current) >= aim or not fits):
            close()
        current = [*current, *rest] if current else ids
        parts += 1
    if current and len(found.samples) < samples:
        close()
    for rest in rests:
        if len(found.samples) >= samples:
            break
        if len(rest) >= SHORTEST:
            found.samples.append(rest)
    return found


def _chain(first: list[list[int]], rest: Iterator[list[int]]) -> Iterator[list[int]]:
    yield from first
    yield from rest
