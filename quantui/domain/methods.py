"""The typed view of ``data/methods.toml``, and whether a method can run somewhere."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.hardware import Gpu


@dataclass(frozen=True)
class Method:
    """One way to hold the weights; see the comments of ``data/methods.toml`` for the fields."""

    name: str
    title: str
    argument: str
    bytes_per_linear_weight: float
    cpu: bool
    min_compute_capability: tuple[int, int]
    summary: str
    source: str
    plugin: str | None = None
    plugin_since: tuple[int, int] | None = None
    tensor_parallel_prequantized: bool = True


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0])


@cache
def methods() -> Mapping[str, Method]:
    """Every method by name, in the catalogue's order."""
    text = resources.files("quantui.data").joinpath("methods.toml").read_text(encoding="utf-8")
    table: dict[str, Method] = {}
    for name, entry in tomllib.loads(text).items():
        entry["min_compute_capability"] = _version(entry["min_compute_capability"])
        if "plugin_since" in entry:
            entry["plugin_since"] = _version(entry["plugin_since"])
        table[name] = Method(name=name, **entry)
    return table


def method(name: str) -> Method:
    """The method called ``name``; an unknown one is a QuantuiError with the nearest name."""
    known = methods()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1, 0.4)
    raise QuantuiError(
        "method.unknown",
        f"There is no quantization method `{name}`.",
        fix=(f"Did you mean `{near[0]}`? " if near else "") + f"Known: {', '.join(known)}.",
        exit_code=ExitCode.BAD_INPUT,
    )


def check_runs_here(
    chosen: Method,
    *,
    on_cpu: bool,
    gpus: Sequence[Gpu],
    checkpoint_quantization: str | None,
    tensor_parallel: int,
) -> None:
    """Refuse (exit code 3) what cannot work on these devices, in this machine's terms."""

    def refuse(what: str, why: str, fix: str) -> QuantuiError:
        return QuantuiError("method.unsupported", what, why, fix, ExitCode.DOES_NOT_FIT)

    title = chosen.title
    if chosen.argument and checkpoint_quantization:
        if checkpoint_quantization != chosen.argument:
            raise refuse(
                f"The checkpoint is already quantized ({checkpoint_quantization}).",
                f"vLLM cannot apply {title} on top of it.",
                'Set quantization.method = "none" to serve it as it is, or give the 16-bit model.',
            )
        if tensor_parallel > 1 and not chosen.tensor_parallel_prequantized:
            raise refuse(
                f"{title} cannot split a pre-quantized checkpoint over {tensor_parallel} GPUs.",
                "vLLM's bitsandbytes loader refuses tensor parallel above 1 for stored 4-bit weights.",
                "Give the 16-bit model, or set serve.tensor_parallel = 1.",
            )
    if on_cpu and not chosen.cpu:
        runs = ", ".join(name for name, other in methods().items() if other.cpu)
        raise refuse(f"{title} does not run on the CPU.", chosen.source, f"Choose one of: {runs}.")
    for gpu in () if on_cpu else gpus:
        have, need = gpu.compute_capability, chosen.min_compute_capability
        if have is not None and have < need:
            raise refuse(
                f"{title} needs compute capability {need[0]}.{need[1]}; "
                f"GPU {gpu.index} ({gpu.name or 'unknown'}) has {have[0]}.{have[1]}.",
                chosen.source,
                "Choose another method, or other devices with serve.visible_devices.",
            )
