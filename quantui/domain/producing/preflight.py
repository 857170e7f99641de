"""What making a checkpoint will take: memory, disk and time, each figure with its formula and source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number in bytes or seconds, how it was computed, and whose measurement is behind it."""

    value: float
    formula: str
    source: str


@dataclass(frozen=True)
class Preflight:
    """What one making takes. ``gpu_bytes`` None: it runs on no GPU here; ``seconds`` None: nobody has measured it.

    ``devices`` are tried in order (``cuda:0``, ``cpu``); ``reasons`` say why these and in this order.
    ``seconds`` are for the first of them.
    """

    ram_bytes: Figure
    gpu_bytes: Figure | None
    disk_bytes: Figure
    seconds: Figure | None
    devices: tuple[str, ...]
    reasons: tuple[str, ...] = ()
