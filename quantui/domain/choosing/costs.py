"""What has to be done before a format can be served: downloads, a merge, a checkpoint to make; time and disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quantui.domain.choosing.recommendation import Cost, Step
from quantui.domain.draft import QuantizationChoice
from quantui.domain.formatting import format_bytes
from quantui.domain.producing.producers import producers
from quantui.domain.producing.recipes import default_recipe
from quantui.domain.producing.times import making_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.hardware import Host
    from quantui.domain.methods import Method

CONNECTION_BYTES_PER_S = 50e6
"""A download's speed for ranking alone (400 Mbit/s); no time is shown for downloads."""
LONGEST_MINUTES = 600.0
"""Work of ten hours leaves nothing of the criterion "effort"; the scale is logarithmic."""
OWN_MINUTES = {"make": 5.0, "train": 10.0, "install": 2.0}
"""What comes on top, for ranking alone: an engine to be installed, the 16-bit model to be measured and the proof; a
person's own work for training; a package."""
SAMPLES, LENGTH = QuantizationChoice.calibration_samples, QuantizationChoice.calibration_length
"""What is calibrated on unless a person says otherwise."""
LOADING_MINUTES = 0.5
"""What quantizing while loading adds to a start, for ranking alone."""
MERGE_BYTES_PER_S = 540e6
"""Of the base's weights: 3.09 GB were merged, proven and hashed in 5.7 s on two cores (benchmarks/results)."""


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


def make_step(
    chosen: Method, parameters: int | None, size: int, host: Host, *, on_cpu: bool
) -> Step:
    """Making a checkpoint of ``size`` bytes in the method's format with its first producer.

    The time is a measured one, on a card or on CPU cores, scaled to the model; None where nobody has measured it.
    """
    recipe = default_recipe(chosen.name)
    producer = producers()[recipe.producer]
    data = f", on {SAMPLES} texts" if recipe.needs_data else ""
    text = f"quantui makes the checkpoint with {producer.title}{data}, {format_bytes(size)} written"
    found = making_time(
        recipe.method,
        recipe.producer,
        parameters,
        on_cpu=on_cpu,
        cores=host.physical_cores,
        samples=SAMPLES,
        length=LENGTH,
    )
    if found is None:
        return Step("make", text, None, size, "nobody has measured it on a machine like this one")
    seconds, timed = found
    where = f"on an {timed.card}" if timed.card else "on this machine's cores"
    return Step(
        "make",
        f"{text}; {timed.text}, about {_spell(seconds.value / 60)} {where}",
        seconds.value,
        size,
        f"formula: {seconds.formula}; {seconds.source}",
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
