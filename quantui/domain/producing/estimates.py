"""Before anything is made: does it fit into memory and on the disk, where can it run, how long will it take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.formatting import format_bytes
from quantui.domain.producing.memory import sizes_of, where
from quantui.domain.producing.preflight import Figure, Preflight
from quantui.domain.producing.produced import produced_method
from quantui.domain.producing.producers import makings
from quantui.domain.producing.times import making_time
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank
from quantui.domain.weights.weight_census import weight_census

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantui.domain.models import ModelSpec
    from quantui.domain.producing.memory import Room, Sizes
    from quantui.domain.producing.recipe import Recipe


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
    of = sizes_of(model)
    found = where(recipe, of, room, device=device, samples=samples, length=length)
    result = made_bytes(model, recipe)
    timed = None
    on_gpu = bool(found.devices) and found.devices[0] != "cpu"
    if found.devices:
        timed = making_time(
            recipe.method,
            recipe.producer,
            of.parameters,
            on_cpu=not on_gpu,
            cores=room.host.physical_cores,
            samples=samples if recipe.needs_data else None,
            length=length,
        )
    return Preflight(
        ram_bytes=found.beside_gpu if on_gpu and found.beside_gpu else found.ram,
        gpu_bytes=found.on_gpu if on_gpu else None,
        disk_bytes=_disk(recipe, of, result, merged_bytes),
        seconds=timed[0] if timed else None,
        devices=found.devices,
        reasons=found.reasons,
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


def _disk(recipe: Recipe, of: Sizes, result: Figure, merged: int) -> Figure:
    making = makings()[recipe.method][recipe.producer]
    parts: list[tuple[str, float]] = [("the result", result.value)]
    if making.scratch_bits_at(recipe.bits):
        bits = making.scratch_bits_at(recipe.bits)
        parts.append((f"a {bits}-bit export beside it", bits / 8 * (of.parameters or 0)))
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
