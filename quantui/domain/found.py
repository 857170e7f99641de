"""A model or an adapter that was found and can be chosen. Its texts are the word of strangers: faces sanitize them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["model", "adapter"]
Place = Literal["hub-cache", "folder", "made", "demo", "hub", "typed"]
"""In the Hub cache; in a folder; an artifact of quantui's; the demo's; still on the Hub; named, not looked at yet."""


@dataclass(frozen=True)
class Found:
    """One entry of a list to choose from.

    ``ref`` is what :func:`.resolve_model` takes; ``revision`` the commit, only where the branch main does not lead
    to it. ``size_bytes`` of its files here; ``last_used`` in seconds since the epoch. ``complete`` False: some of
    it has to be downloaded. ``stored`` says in words what it is quantized with (of an adapter: its PEFT type), ""
    for 16 or 32 bit; ``base`` is what an adapter names as its base. ``problem``: why it cannot be used, "" where
    nothing is known to be wrong. ``downloads`` in 30 days, as the Hub counts. What is not known is None.
    """

    kind: Kind
    place: Place
    ref: str
    path: str | None = None
    revision: str | None = None
    size_bytes: int | None = None
    last_used: float | None = None
    complete: bool = True
    stored: str = ""
    dtype: str | None = None
    model_type: str | None = None
    base: str | None = None
    rank: int | None = None
    problem: str = ""
    parameters: int | None = None
    downloads: int | None = None
    gated: bool = False

    @property
    def key(self) -> tuple[str, str | None]:
        """What tells it from others."""
        return self.ref, self.revision

    def matches(self, words: tuple[str, ...]) -> bool:
        """Whether every one of ``words`` (lower case) is in its name, its format or its kind."""
        told = (self.ref, self.stored, self.dtype, self.model_type, self.base)
        text = " ".join(filter(None, told)).lower()
        return all(word in text for word in words)
