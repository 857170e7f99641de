"""What a producer is asked to make: a method with every choice settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Data = Literal["none", "data", "optional"]
"""Whether texts are run through the model: never, always, or where the recipe profits from them."""


@dataclass(frozen=True)
class Recipe:
    """A checkpoint to be made. None where a field does not belong to the method.

    ``method`` is the catalogue's name of what was asked for, ``writes`` of the format that is served afterwards.
    ``group_size`` -1: a whole row shares a scale. ``why`` says why this producer, in one sentence; ``notes`` what
    else a person should know of the choice. Neither changes what is made.
    """

    method: str
    producer: str
    writes: str
    bits: int
    group_size: int | None = None
    symmetric: bool | None = None
    ignore: tuple[str, ...] = ("lm_head",)
    format: str | None = None
    mixed_bits: int | None = None
    rounding: str | None = None
    needs_data: bool = False
    why: str = ""
    notes: tuple[str, ...] = ()

    def to_job(self) -> dict[str, Any]:
        """The ``recipe`` of a producer's job, which is also what an artifact's key has of it."""
        return {
            "method": self.method,
            "producer": self.producer,
            "writes": self.writes,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "ignore": list(self.ignore),
            "format": self.format,
            "mixed_bits": self.mixed_bits,
            "rounding": self.rounding,
        }

    @property
    def slug(self) -> str:
        """A folder's word for it: ``awq-llm-compressor-w4-g128``."""
        words = [self.method, self.producer, f"w{self.bits}"]
        if self.mixed_bits:
            words.append(f"mixed{self.mixed_bits}")
        if self.group_size is not None:
            words.append("row" if self.group_size == -1 else f"g{self.group_size}")
        if self.symmetric is False:
            words.append("asym")
        return "-".join([*words, *filter(None, (self.format, self.rounding))])

    @property
    def text(self) -> str:
        """In words: ``4 bit, groups of 128, symmetric``."""
        words = [f"{self.bits} bit" + (f" mixed with {self.mixed_bits}" if self.mixed_bits else "")]
        if self.group_size is not None:
            row = self.group_size == -1
            words.append("a scale a row" if row else f"groups of {self.group_size}")
        if self.symmetric is not None:
            words.append("symmetric" if self.symmetric else "asymmetric")
        words += [f"written as {self.format}"] if self.format else []
        words += [f"rounded by {self.rounding}"] if self.rounding else []
        return ", ".join(words)
