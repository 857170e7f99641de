"""What has to be done before a format can be served: downloads, a merge, a checkpoint to make; time and disk."""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from quantui.domain.choosing.recommendation import Cost, Step
from quantui.domain.formatting import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantui.domain.methods import Method

CONNECTION_BYTES_PER_S = 50e6
"""A download's speed for ranking alone (400 Mbit/s); no time is shown for downloads."""
LONGEST_MINUTES = 600.0
"""Work of ten hours leaves nothing of the criterion "effort"; the scale is logarithmic."""
OWN_MINUTES = {"make": 10.0, "train": 10.0, "install": 2.0}
"""A person's own work (an environment, texts to calibrate on, a package), for ranking alone."""
LOADING_MINUTES = 0.5
"""What quantizing while loading adds to a start, for ranking alone."""
MERGE_BYTES_PER_S = 540e6
"""Of the base's weights: 3.09 GB were merged, proven and hashed in 5.7 s on two cores (benchmarks/results)."""


@cache
def _making() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files("quantui.data").joinpath("making.toml").read_text(encoding="utf-8")
    return {name: entry for entry in tomllib.loads(text).values() for name in entry.pop("methods")}


def download_step(ref: str, size: int) -> Step:
    """A download of ``size`` bytes; its time is the connection's affair and not known."""
    return Step("download", f"download {ref}, {format_bytes(size)}", None, size, "sizes on the Hub")


def merge_step(adapters: int, weights: int) -> Step:
    """Folding ``adapters`` into a base of ``weights`` bytes: a second copy of it on disk."""
    what = "the adapter" if adapters == 1 else f"{adapters} adapters"
    return Step(
        "merge",
        f"merge {what} into the 16-bit base, {format_bytes(weights)} written",
        weights / MERGE_BYTES_PER_S,
        weights,
        f"formula: weights / {MERGE_BYTES_PER_S / 1e6:.0f} MB/s, quantui's own measurement on two cores",
    )


def make_step(chosen: Method, parameters: int | None, size: int, *, on_cpu: bool) -> Step:
    """Making a checkpoint of ``size`` bytes in the method's format with its first producer.

    The time is a published one on an A100, scaled with the parameters; None where none is known, and on a
    machine without a GPU.
    """
    known = _making().get(chosen.name)
    producer = chosen.producers[0] if chosen.producers else "its producer"
    data = " with 128 to 512 texts" if chosen.calibration == "data" else ""
    text = f"make the checkpoint with {producer}{data}, {format_bytes(size)} written"
    if known is None or not parameters or on_cpu:
        return Step("make", text, None, size, "no published time for this machine")
    minutes = known["minutes"] * parameters / known["parameters"]
    return Step(
        "make",
        f"{text}; {known['text']}, about {_spell(minutes)} on an {known['card']}",
        minutes * 60,
        size,
        f"formula: {known['minutes']:g} min x {parameters / 1e9:.1f}B / "
        f"{known['parameters'] / 1e9:.1f}B parameters; {known['source']}",
    )


def train_step(producer: str) -> Step:
    """Training an adapter, which quantui does not do: its length is the user's choice."""
    return Step(
        "train",
        f"train the adapter with {producer}",
        None,
        0,
        "as long as the data and epochs take",
    )


def install_step(package: str) -> Step:
    """A package that the engine lacks."""
    return Step("install", f"install {package} beside vLLM", None, 0, "the catalogue of methods")


def total_cost(steps: Iterable[Step]) -> Cost:
    """The steps together; unknown times are left out, and the sum is None when none of several is known."""
    steps = tuple(steps)
    worked = [step for step in steps if step.kind not in ("download", "install")]
    known = [step.seconds for step in worked if step.seconds is not None]
    seconds = sum(known) if len(known) == len(worked) else None
    return Cost(
        seconds,
        sum(step.disk_bytes for step in steps),
        sum(step.disk_bytes for step in steps if step.kind == "download"),
        steps,
    )


def effort(cost: Cost, slowest_seconds: float, *, in_flight: bool = False) -> float:
    """1: nothing to do; 0: ten hours and more. Work of unknown length counts as the slowest that is known."""
    seconds = slowest_seconds if cost.seconds is None else cost.seconds
    minutes = (seconds + cost.download_bytes / CONNECTION_BYTES_PER_S) / 60
    minutes += sum(OWN_MINUTES.get(step.kind, 0.0) for step in cost.steps)
    minutes += LOADING_MINUTES if in_flight else 0.0
    return max(0.0, 1.0 - math.log1p(minutes) / math.log1p(LONGEST_MINUTES))


def _spell(minutes: float) -> str:
    if minutes < 1.5:
        return "a minute"
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes >= 600 else f"{minutes / 60:.1f} h"
