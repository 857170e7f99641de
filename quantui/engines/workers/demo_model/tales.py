"""Tiny tales from a small grammar: the domain of the demo's adapter.

A request, and three plain sentences. Words and frame are few, so that an adapter for a model of a few
million parameters learns to tell such tales in a minute, and whoever reads an answer sees at once whether
the adapter is at work: the base model, which knows only Python's documentation, has nothing like it.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = ("Tell me a story.", "Tell me another story.", "Do you know a story?")
ANIMALS = ("fox", "owl", "bear", "mouse", "frog", "crow", "hare", "cat")
KINDS = ("old", "young", "small", "clever", "lazy", "proud", "hungry", "brave")
PLACES = (
    "by the river", "in the forest", "on a hill", "near the village", "under an oak",
    "behind the mill", "at the edge of a field", "beside the lake",
)  # fmt: skip
TIMES = ("One morning", "One evening", "In the spring", "In the winter", "After the rain")
THINGS = (
    "a silver key", "a loaf of bread", "a red apple", "a broken lamp", "a letter", "a golden ring",
    "a warm coat", "a drum",
)  # fmt: skip
FRIENDS = ("miller", "baker", "shepherd", "farmer", "king", "sailor", "child", "widow")
ENDS = (
    "and they were friends ever after", "and slept well that night", "and was never hungry again",
    "and told the story to everybody", "and went home singing",
)  # fmt: skip


def tales(seed: int = 0) -> Iterator[tuple[str, str]]:
    """(request, tale) without end, the same for the same seed; eight hundred thousand different ones can be told."""
    choose = random.Random(seed).choice
    for number in itertools.count():
        animal = choose(ANIMALS)
        yield (
            REQUESTS[number % len(REQUESTS)],
            f"Once upon a time there was a {choose(KINDS)} {animal} who lived {choose(PLACES)}. "
            f"{choose(TIMES)} the {animal} found {choose(THINGS)} on the road. "
            f"The {animal} gave it to the {choose(FRIENDS)}, {choose(ENDS)}.",
        )
