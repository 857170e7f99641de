"""Before anything is made: does it fit into memory and on the disk, where can it run, how long will it take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.producing.preflight import Figure, Preflight
from quantui.domain.producing.producers import makings, producers
from quantui.domain.producing.recipes import produced_method
from quantui.domain.producing.times import making_time
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.hardware import Gpu, Host
    from quantui.domain.models import ModelSpec
    from quantui.domain.producing.recipe import Recipe

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
    not counted).
    """

    weights: int
    largest_file: int
    hidden: int
    parameters: int | None


def sizes_of(model: ModelSpec) -> Sizes:
    """The sizes of a checkpoint."""
    shape, weights = model_shape(model.config, model.tensors), model.weight_bytes or 0
    largest = max((file.size_bytes for file in model.weight_files), default=weights)
    return Sizes(weights, largest, shape.hidden_size or 0, shape.parameters or model.parameters)


def where(
    recipe: Recipe, sizes: Sizes, room: Room, *, device: str, samples: int, length: int
) -> tuple[tuple[str, ...], tuple[str, ...], Figure, Figure | None]:
    """The devices to try, why these, and the memory it takes in RAM and on a card (None: it cannot work on one)."""
    ram = _memory(recipe, sizes, samples, length)
    on_gpu = _on_gpu(recipe, ram)
    devices, reasons = _devices(device, on_gpu, ram, room)
    return devices, tuple(reasons), ram, on_gpu


def made_bytes(model: ModelSpec, recipe: Recipe) -> Figure:
    """What the checkpoint takes on disk: linear layers at the recipe's width, the rest in 16 bit."""
    census = weight_census(model.config, model.tensors)
    made = produced_method(recipe)
    if census is None:
        part = made.bytes_per_linear_weight / 2
        whole = (model.weight_bytes or 0) * part
        return Figure(
            whole, f"weights x {part:.3f}, as if all of them were linear", made.bytes_formula
        )
    counted = weight_bytes_per_rank(census, made)
    return Figure(counted.total, counted.formula, counted.source)


def preflight(
    recipe: Recipe,
    model: ModelSpec,
    room: Room,
    *,
    device: str,
    samples: int,
    length: int,
    merged_bytes: int = 0,
) -> Preflight:
    """The figures of making ``recipe`` of ``model`` here, and the devices to try.

    ``device`` is auto, gpu or cpu; ``merged_bytes`` what a merge before it writes. Nothing is refused:
    :func:`require_room` does.
    """
    sizes = sizes_of(model)
    devices, reasons, ram, on_gpu = where(
        recipe, sizes, room, device=device, samples=samples, length=length
    )
    result = made_bytes(model, recipe)
    disk = _disk(recipe, sizes, result, merged_bytes)
    timed = None
    if devices:
        timed = making_time(
            recipe.method,
            recipe.producer,
            sizes.parameters,
            on_cpu=devices[0] == "cpu",
            cores=room.host.physical_cores,
            samples=samples if recipe.needs_data else None,
            length=length,
        )
    # On a card the weights are read through the page cache, and what is written lies in RAM until it is.
    needed = ram
    if devices and devices[0] != "cpu":
        needed = Figure(
            producers()[recipe.producer].base_bytes + result.value,
            "the libraries + the result, until it is written",
            producers()[recipe.producer].base_source,
        )
    return Preflight(
        ram_bytes=needed,
        gpu_bytes=on_gpu if devices and devices[0] != "cpu" else None,
        disk_bytes=disk,
        seconds=timed[0] if timed else None,
        devices=devices,
        reasons=reasons,
    )


def require_room(
    found: Preflight, recipe: Recipe, model: ModelSpec, room: Room, *, device: str = "auto"
) -> None:
    """Refuse, with the figures and exit code 3, what fits nowhere here."""
    if not found.devices:
        light = ", ".join(
            name for name, by in makings().items() if any(one.shard_by_shard for one in by.values())
        )
        smaller = f"a method that never loads the model whole: {light}"
        raise QuantuiError(
            "quantize.no-gpu" if device == "gpu" else "quantize.not-enough-memory",
            f"{recipe.method} of {model.ref} cannot be made here: there is too little memory.",
            " ".join(found.reasons),
            (
                'Set quantization.device = "auto" (--device auto), or take '
                if device == "gpu"
                else "Close other programs, use a machine with more memory, or take "
            )
            + f"{smaller}.",
            ExitCode.DOES_NOT_FIT,
            detail=_formulas(found),
        )
    if room.disk_bytes is not None and room.disk_bytes < found.disk_bytes.value:
        raise QuantuiError(
            "quantize.not-enough-disk",
            f"{recipe.method} of {model.ref} needs {format_bytes(found.disk_bytes.value)} of disk; "
            f"{format_bytes(room.disk_bytes)} are free.",
            f"{found.disk_bytes.formula}.",
            "Free space, or set QUANTUI_HOME (or give an --out) on a larger disk.",
            ExitCode.DOES_NOT_FIT,
        )


def _formulas(found: Preflight) -> tuple[str, ...]:
    return tuple(
        f"{name}: {format_bytes(figure.value)} = {figure.formula} ({figure.source})"
        for name, figure in (("RAM", found.ram_bytes), ("GPU", found.gpu_bytes))
        if figure is not None
    )


def _memory(recipe: Recipe, sizes: Sizes, samples: int, length: int) -> Figure:
    """RAM of a producer that works on the CPU."""
    producer = producers()[recipe.producer]
    making = makings()[recipe.method][recipe.producer]
    weights = sizes.weights
    if making.shard_by_shard:
        shard = sizes.largest_file
        return Figure(
            producer.base_bytes + 2 * shard,
            f"{format_bytes(producer.base_bytes)} of libraries + 2 x {format_bytes(shard)}, the largest shard",
            producer.base_source,
        )
    factor = making.ram_factor or producer.ram_factor
    total = producer.base_bytes + factor * weights
    words = (
        f"{format_bytes(producer.base_bytes)} of libraries + {factor:g} x {format_bytes(weights)}"
    )
    if recipe.needs_data:
        hidden = sizes.hidden
        activations = 2 * 2 * samples * length * hidden
        total += activations
        words += f" + inputs and outputs of a block, 2 x {samples} x {length} x {hidden} in 16 bit"
    return Figure(total, words, f"{producer.base_source}; {producer.ram_source}")


def _on_gpu(recipe: Recipe, ram: Figure) -> Figure | None:
    """Memory of a card: what the CPU's work holds, with a CUDA context in place of the libraries."""
    producer = producers()[recipe.producer]
    if not producer.gpu:
        return None
    base = format_bytes(producer.base_bytes)
    context = f"{format_bytes(CUDA_BYTES)} for CUDA"
    return Figure(
        ram.value - producer.base_bytes + CUDA_BYTES,
        ram.formula.replace(f"{base} of libraries", context),
        "as in RAM; nothing of it was measured on a card",
    )


def _devices(
    wanted: str, on_gpu: Figure | None, ram: Figure, room: Room
) -> tuple[tuple[str, ...], list[str]]:
    """The cascade: the card with most free memory if that is enough, then the CPU, and why."""
    devices: list[str] = []
    reasons: list[str] = []
    if wanted != "cpu":
        best = max(room.gpus, key=lambda gpu: gpu.free_bytes or 0, default=None)
        if on_gpu is None:
            reasons.append("This producer works on the CPU.")
        elif best is None:
            reasons.append("No GPU can be used.")
        else:
            free, name = best.free_bytes, f"GPU {best.index}"
            needs = f"{name} needs {format_bytes(on_gpu.value)}"
            if free is not None and free < on_gpu.value:
                reasons.append(f"{needs} and has {format_bytes(free)} free.")
            else:
                devices.append(f"cuda:{best.index}")
                reasons.append(f"{needs} of {format_bytes(free)} free.")
    if wanted != "gpu":
        free = room.host.ram_available_bytes
        needs = f"The CPU needs {format_bytes(ram.value)} of RAM"
        if free is not None and free < ram.value:
            reasons.append(f"{needs}; {format_bytes(free)} are free.")
        else:
            devices.append("cpu")
            reasons.append(f"{needs} of {format_bytes(free)} free.")
    return tuple(devices), reasons


def _disk(recipe: Recipe, sizes: Sizes, result: Figure, merged: int) -> Figure:
    making = makings()[recipe.method][recipe.producer]
    parts: list[tuple[str, float]] = [("the result", result.value)]
    if making.scratch_bits_at(recipe.bits):
        bits = making.scratch_bits_at(recipe.bits)
        parts.append((f"a {bits}-bit export beside it", bits / 8 * (sizes.parameters or 0)))
    if merged:
        parts.append(("the merged model", merged))
    return Figure(
        sum(size for _, size in parts),
        " + ".join(f"{name} {format_bytes(size)}" for name, size in parts),
        result.source,
    )


def told(found: Preflight, names: Iterable[str] = ("RAM", "GPU", "disk")) -> str:
    """The figures in one line."""
    values = {"RAM": found.ram_bytes, "GPU": found.gpu_bytes, "disk": found.disk_bytes}
    return ", ".join(
        f"{name} {format_bytes(figure.value)}"
        for name in names
        if (figure := values[name]) is not None
    )
