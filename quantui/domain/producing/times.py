"""How long making a checkpoint takes, from measured and published times scaled to the model."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from quantui.domain.producing.preflight import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Timed:
    """One measurement; the fields are those of ``data/making.toml``."""

    methods: tuple[str, ...]
    seconds: float
    parameters: float
    text: str
    source: str
    producers: tuple[str, ...] = ()
    fixed: float = 0.0
    card: str | None = None
    cores: int | None = None
    samples: int | None = None
    length: int | None = None


@cache
def _measured() -> Mapping[str, Timed]:
    path = resources.files("quantui.data").joinpath("making.toml")
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    for entry in entries.values():
        entry.update({key: tuple(entry[key]) for key in ("methods", "producers") if key in entry})
    return {name: Timed(**entry) for name, entry in entries.items()}


def making_time(
    method: str,
    producer: str,
    parameters: int | None,
    *,
    on_cpu: bool,
    cores: int | None = None,
    samples: int | None = None,
    length: int | None = None,
) -> tuple[Figure, Timed] | None:
    """Seconds to make ``method`` of a model with ``producer``, and the measurement; None: nobody has measured it.

    ``cores`` are this machine's; None counts as those of the measurement. ``samples`` of ``length`` tokens scale a
    time whose own are known.
    """
    if not parameters:
        return None
    entry = next(_known(method, producer, on_cpu=on_cpu), None)
    if entry is None:
        return None
    factor = parameters / entry.parameters
    words = [f"{_billions(parameters)} / {_billions(entry.parameters)} parameters"]
    if samples and length and entry.samples and entry.length:
        factor *= samples * length / (entry.samples * entry.length)
        words.append(f"{samples} x {length} / ({entry.samples} x {entry.length}) tokens")
    if entry.cores and cores and cores != entry.cores:
        factor *= entry.cores / cores
        words.append(f"{entry.cores} / {cores} cores")
    seconds = entry.fixed + (entry.seconds - entry.fixed) * factor
    start = f"{entry.fixed:g} s + " if entry.fixed else ""
    formula = f"{start}{entry.seconds - entry.fixed:g} s x {' x '.join(words)}"
    where = f"on an {entry.card}" if entry.card else f"on {entry.cores} cores"
    return Figure(seconds, formula, f"{entry.text} {where}: {entry.source}"), entry


def _known(method: str, producer: str, *, on_cpu: bool) -> Iterator[Timed]:
    return (
        one
        for one in _measured().values()
        if method in one.methods
        and (not one.producers or producer in one.producers)
        and (one.card is None) == on_cpu
    )


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:.3g}B" if parameters >= 1e8 else f"{parameters / 1e6:.3g}M"
