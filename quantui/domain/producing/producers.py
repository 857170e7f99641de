"""The typed view of ``data/producers.toml``: which library makes what, and within which limits."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.producing.recipe import Data


@dataclass(frozen=True)
class Known:
    """The models that a library's own list has, by ``model_type`` or by class; ``only``: it refuses others."""

    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    only: bool = False
    source: str = ""

    def has(self, model_type: str | None, architecture: str | None) -> bool | None:
        """Whether the model is listed; None: there is no list, or the model does not say what it is."""
        if self.model_types and model_type is not None:
            return model_type in self.model_types
        if self.architectures and architecture is not None:
            return architecture in self.architectures
        return None


@dataclass(frozen=True)
class Producer:
    """A library that makes quantized checkpoints.

    ``package`` is its distribution; the versions of ``versions`` belong to what a checkpoint was made with.
    ``worker`` is the program that runs it (quantui/engines/workers), ``why`` one reason to take it, in words that
    follow "because".
    """

    name: str
    title: str
    package: str
    versions: tuple[str, ...]
    worker: str
    why: str
    source: str
    base_bytes: int
    """RAM of the interpreter with the libraries imported."""
    base_source: str
    ram_factor: float
    """RAM that the work takes beside that, in sizes of the 16-bit weights."""
    ram_source: str
    known: Known
    gpu: Literal["model", "layer", "none"] = "model"
    """What it takes to a card: the whole model, one layer after the other, or nothing."""
    states_on_card: bool = False
    """Whether the samples' hidden states go to the card with a layer."""
    layer_bytes: int = 4
    """Bytes that the work on a layer takes for each of its weights."""

    @property
    def purpose(self) -> str:
        """What an engine that has it provides."""
        return f"quantize-{self.name}"

    @property
    def work(self) -> str:
        """The worker and its revision, which changes when the same inputs would give other bytes."""
        return f"{self.worker.removesuffix('.py')}/1"


@dataclass(frozen=True)
class Making:
    """What one producer makes of one method, and the options that it takes; an option's first value is its default.

    ``writes``: the catalogue's name of the written format by bits; ``format_writes`` likewise for other ``formats``
    than the first. ``groups`` -1: a scale a row; empty: the method has no groups to choose, or none at ``bits`` that
    are not in ``group_bits``. ``mixed_bits`` are widths that are mixed with 4 in a ``mixed_share`` of the weights,
    and ``mixed_formats`` those that hold them. ``ignores``: whether layers can be left in 16 bit. ``shard_by_shard``:
    the model is never loaded, and takes so many times its largest file of memory. ``ram_factors`` by bits, where
    they are not the producer's; ``hidden_states``: copies of all samples' hidden states that are held at once, in 16
    bit; ``scratch_bits``: by bits, the width of a copy of the model that lies beside the result until it is done.
    """

    method: str
    producer: str
    writes: Mapping[int, str]
    source: str
    data: Data = "none"
    groups: tuple[int, ...] = ()
    group_bits: tuple[int, ...] = ()
    symmetric: tuple[bool, ...] = ()
    formats: tuple[str, ...] = ()
    format_writes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    mixed_bits: tuple[int, ...] = ()
    mixed_formats: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    mixed_share: float = 0.0
    rounding: tuple[str, ...] = ()
    shard_by_shard: float = 0.0
    ram_factors: Mapping[int, float] = field(default_factory=dict)
    hidden_states: int = 3
    ram_source: str = ""
    ignores: bool = True
    scratch_bits: Mapping[int, int] = field(default_factory=dict)
    note: str = ""
    known: Known = Known()

    @property
    def bits(self) -> tuple[int, ...]:
        """The widths it makes in its first format."""
        return tuple(self.writes)

    def groups_at(self, bits: int) -> tuple[int, ...]:
        """The group sizes it takes at a width."""
        return self.groups if not self.group_bits or bits in self.group_bits else ()

    def scratch_bits_at(self, bits: int) -> int:
        """The width of the copy beside the result; 0: there is none."""
        return self.scratch_bits.get(bits, 0)

    def written(self, bits: int, format: str | None) -> str | None:
        """What is written at a width in a format; None: it cannot."""
        return self.format_writes.get(format or "", self.writes).get(bits)


@dataclass(frozen=True)
class Alias:
    """A method of the catalogue that is made as another: ``by_bits`` where the width decides."""

    method: str
    note: str
    by_bits: Mapping[int, str] = field(default_factory=dict)


@cache
def _data() -> Mapping[str, Any]:
    path = resources.files("quantui.data").joinpath("producers.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def producers() -> Mapping[str, Producer]:
    """Every producer by name."""
    return {name: _producer(name, dict(entry)) for name, entry in _data()["producer"].items()}


@cache
def makings() -> Mapping[str, Mapping[str, Making]]:
    """For each method that can be made: how each producer makes it, the default one first."""
    return {
        method: {name: _making(method, name, dict(entry)) for name, entry in by_producer.items()}
        for method, by_producer in _data()["makes"].items()
    }


@cache
def aliases() -> Mapping[str, Alias]:
    """Methods that are made under another's name."""
    return {
        name: Alias(entry["method"], entry["note"], _by_bits(entry.get("by_bits", {})))
        for name, entry in _data()["alias"].items()
    }


def made_as(name: str) -> str | None:
    """The method that is made where ``name`` is asked for: itself, or what it is an alias of; None: nothing is."""
    if name in makings():
        return name
    alias = aliases().get(name)
    return alias.method if alias else None


def producers_of(name: str) -> tuple[Producer, ...]:
    """The producers that make the catalogue's method ``name``, the default one first."""
    return tuple(producers()[one.producer] for one in makings_of(name))


def makings_of(name: str) -> tuple[Making, ...]:
    """How each producer makes what is made where the catalogue's method ``name`` is asked for."""
    made = made_as(name)
    return tuple(makings()[made].values()) if made else ()


def _producer(name: str, entry: dict[str, Any]) -> Producer:
    known = _known(entry)
    return Producer(name=name, known=known, **_frozen(entry))


def _making(method: str, producer: str, entry: dict[str, Any]) -> Making:
    known = _known(entry)
    entry["writes"] = _by_bits(entry["writes"])
    for key in ("scratch_bits", "ram_factors"):
        entry[key] = {int(bits): number for bits, number in entry.get(key, {}).items()}
    entry["mixed_formats"] = {
        int(bits): tuple(formats) for bits, formats in entry.get("mixed_formats", {}).items()
    }
    entry["format_writes"] = {
        name: _by_bits(one) for name, one in entry.get("format_writes", {}).items()
    }
    return Making(method=method, producer=producer, known=known, **_frozen(entry))


def _known(entry: dict[str, Any]) -> Known:
    return Known(
        tuple(entry.pop("model_types", ())),
        tuple(entry.pop("architectures", ())),
        entry.pop("only", False),
        entry.pop("known_source", entry["source"]),
    )


def _by_bits(entry: Mapping[str, str]) -> dict[int, str]:
    """TOML's keys are strings."""
    return {int(bits): name for bits, name in entry.items()}


def _frozen(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
