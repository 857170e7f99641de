"""What making a checkpoint holds in memory, and on which devices of a machine it can be made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.formatting import format_bytes
from quantui.domain.producing.preflight import Figure
from quantui.domain.producing.producers import makings, producers
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.hardware import Gpu, Host
    from quantui.domain.models import ModelSpec
    from quantui.domain.producing.recipe import Recipe
    from quantui.domain.weights.weight_groups import WeightGroup

CUDA_BYTES = 600_000_000
"""A CUDA context and its workspaces, taken as at most this (as the workers do)."""


@dataclass(frozen=True)
class Room:
    """What is free: ``gpus`` that may be tried (none for an engine without CUDA), the host's RAM and its disk.

    ``disk_bytes`` None: unknown.
    """

    gpus: tuple[Gpu, ...]
    host: Host
    disk_bytes: int | None


@dataclass(frozen=True)
class Sizes:
    """What memory and time are computed from.

    Bytes of the 16-bit weights and of their largest file, features of a token between layers, and parameters (None:
    not counted). ``layer_elements`` are the linear weights of the largest layer, ``layer_hessians`` the elements of
    the Hessians that GPTQ holds of it: inputs x inputs of each linear layer, and of the largest three times more while
    it is inverted.
    """

    weights: int
    largest_file: int
    hidden: int
    parameters: int | None
    layer_elements: int = 0
    layer_hessians: int = 0


def sizes_of(model: ModelSpec) -> Sizes:
    """The sizes of a checkpoint."""
    shape, weights = model_shape(model.config, model.tensors), model.weight_bytes or 0
    largest = max((file.size_bytes for file in model.weight_files), default=weights)
    parameters = shape.parameters or model.parameters
    census = weight_census(model.config, model.tensors)
    return sizes(weights, largest, shape.hidden_size, parameters, census)


def sizes(
    weights: int,
    largest_file: int,
    hidden: int | None,
    parameters: int | None,
    census: Sequence[WeightGroup] | None,
) -> Sizes:
    """The sizes, with the largest layer's counted from its ``census``."""
    elements: Counter[int] = Counter()
    hessians: Counter[int] = Counter()
    widest = 0
    for group in census or ():
        if group.role not in ("linear", "expert"):
            continue
        widest = max(widest, group.columns)
        for layer in group.layers:
            each = group.count // len(group.layers)
            elements[layer] += each * group.rows * group.columns
            hessians[layer] += each * group.columns**2
    return Sizes(
        weights,
        largest_file,
        hidden or 0,
        parameters,
        max(elements.values(), default=0),
        max(hessians.values(), default=0) + 3 * widest**2,
    )


@dataclass(frozen=True)
class Where:
    """The devices to try, why these, and the memory that it takes.

    ``on_gpu`` and ``beside_gpu``: of a card, and of RAM beside it; None: it cannot work on one.
    """

    devices: tuple[str, ...]
    reasons: tuple[str, ...]
    ram: Figure
    on_gpu: Figure | None
    beside_gpu: Figure | None


def where(
    recipe: Recipe, of: Sizes, room: Room, *, device: str, samples: int, length: int
) -> Where:
    """Where ``recipe`` can be made of a model of these sizes; ``device`` is auto, gpu or cpu."""
    ram = _ram(recipe, of, samples, length)
    on_gpu, beside = _on_gpu(recipe, of, ram, samples, length)
    devices, reasons = _devices(device, ram, on_gpu, beside, room)
    return Where(devices, reasons, ram, on_gpu, beside)


def _ram(recipe: Recipe, of: Sizes, samples: int, length: int) -> Figure:
    """RAM of a producer that works on the CPU."""
    producer = producers()[recipe.producer]
    making = makings()[recipe.method][recipe.producer]
    base = f"{format_bytes(producer.base_bytes)} of libraries"
    if making.shard_by_shard:
        return Figure(
            producer.base_bytes + making.shard_by_shard * of.largest_file,
            f"{base} + {making.shard_by_shard:g} x {format_bytes(of.largest_file)}, the largest shard",
            making.ram_source,
        )
    factor = making.ram_factors.get(recipe.bits, producer.ram_factor)
    work, words = _work(recipe, of, samples, length)
    return Figure(
        producer.base_bytes + factor * of.weights + work,
        f"{base} + {factor:g} x {format_bytes(of.weights)} of weights{words}",
        f"{producer.base_source}; {making.ram_source or producer.ram_source}",
    )


def _work(recipe: Recipe, of: Sizes, samples: int, length: int) -> tuple[float, str]:
    """Bytes that are held beside the weights: hidden states of all samples, and the largest layer's."""
    producer = producers()[recipe.producer]
    making = makings()[recipe.method][recipe.producer]
    total, words = 0.0, ""
    if recipe.needs_data:
        states = making.hidden_states
        total += states * samples * length * of.hidden * 2
        words += f" + {states} x {samples} x {length} x {of.hidden} hidden states in 16 bit"
    layer = producer.layer_bytes * of.layer_elements
    words += (
        f" + {format_bytes(layer)} for the largest layer, {producer.layer_bytes} bytes a weight"
    )
    if recipe.method == "gptq" or recipe.rounding == "gptq":
        layer += 4 * of.layer_hessians
        words += f" + {format_bytes(4 * of.layer_hessians)} of its Hessians"
    return total + layer, words


def _on_gpu(
    recipe: Recipe, of: Sizes, ram: Figure, samples: int, length: int
) -> tuple[Figure | None, Figure | None]:
    """Memory of a card, and of the RAM beside it: the model is there or here, as the producer holds it."""
    producer = producers()[recipe.producer]
    making = makings()[recipe.method][recipe.producer]
    unmeasured = "as in RAM; it was not measured on a card"
    context = f"{format_bytes(CUDA_BYTES)} for CUDA"
    if producer.gpu == "none":
        return None, None
    if making.shard_by_shard:
        size = making.shard_by_shard * of.largest_file
        words = f"{context} + {making.shard_by_shard:g} x {format_bytes(of.largest_file)}, the largest shard"
        return Figure(CUDA_BYTES + size, words, unmeasured), ram
    work, words = _work(recipe, of, samples, length)
    if producer.gpu == "layer":
        # The model stays in RAM, mostly with the hidden states; a layer at a time goes to the card.
        with_states = recipe.needs_data and producer.states_on_card
        layer, said = _work(replace(recipe, needs_data=with_states), of, samples, length)
        return Figure(CUDA_BYTES + layer, context + said, unmeasured), ram
    factor = making.ram_factors.get(recipe.bits, producer.ram_factor)
    card = Figure(
        CUDA_BYTES + factor * of.weights + work,
        f"{context} + {factor:g} x {format_bytes(of.weights)} of weights{words}",
        unmeasured,
    )
    beside = Figure(
        producer.base_bytes + of.largest_file,
        f"{format_bytes(producer.base_bytes)} of libraries + {format_bytes(of.largest_file)}, the largest file",
        producer.base_source,
    )
    return card, beside


def _devices(
    wanted: str, ram: Figure, on_gpu: Figure | None, beside: Figure | None, room: Room
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The cascade: the card with most free memory if that is enough, then the CPU, and why."""
    devices: list[str] = []
    reasons: list[str] = []
    free = room.host.ram_available_bytes
    if wanted != "cpu":
        best = max(room.gpus, key=lambda gpu: gpu.free_bytes or 0, default=None)
        if on_gpu is None or beside is None:
            reasons.append("This producer works on the CPU.")
        elif best is None:
            reasons.append("No GPU can be used.")
        else:
            there, name = best.free_bytes, f"GPU {best.index}"
            needs = f"{name} needs {format_bytes(on_gpu.value)}"
            if there is not None and there < on_gpu.value:
                reasons.append(f"{needs} and has {format_bytes(there)} free.")
            elif free is not None and free < beside.value:
                reasons.append(
                    f"{name} needs {format_bytes(beside.value)} of RAM beside it; {format_bytes(free)} are free."
                )
            else:
                devices.append(f"cuda:{best.index}")
                reasons.append(f"{needs} of {format_bytes(there)} free.")
    if wanted != "gpu":
        needs = f"The CPU needs {format_bytes(ram.value)} of RAM"
        if free is not None and free < ram.value:
            reasons.append(f"{needs}; {format_bytes(free)} are free.")
        else:
            devices.append("cpu")
            reasons.append(f"{needs} of {format_bytes(free)} free.")
    return tuple(devices), tuple(reasons)
