"""The typed view of ``data/methods.toml``: the ways to hold the weights, and where their facts are from."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, get_args

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.hardware import Gpu

Status = Literal["current", "plugin", "retired", "training", "other-runtime", "research"]
"""current: vLLM's own; plugin: vLLM with a package of its own beside it; retired: vLLM dropped it or is about to;
training, other-runtime: not what vLLM serves; research: a published line of work that lives on in ``instead``."""

Calibration = Literal["none", "data", "optional"]
"""What making the checkpoint takes: nothing, texts to run through the model, or either."""

Version = tuple[int, ...]


@dataclass(frozen=True)
class Statement:
    """A sentence about speed or quality, and whose it is (a paper, a file of vLLM, an address)."""

    text: str
    source: str


@dataclass(frozen=True)
class Method:
    """One way to hold the weights.

    ``argument`` is the value of vLLM's ``--quantization``, empty where vLLM finds the format in the checkpoint;
    ``vllm_names`` are the names vLLM registers, or a checkpoint's ``quant_method`` has, for this format (several
    methods share one: compressed-tensors). ``bytes_per_linear_weight`` is what a linear layer's weight takes in
    memory once loaded, scales included, by ``bytes_formula``; embeddings, head, norms and biases stay in 16 bit.
    ``min_compute_capability`` and ``max_compute_capability`` (both inclusive) are what really runs, which can be
    narrower than what vLLM declares; below ``weight_only_below`` the weights are stored so and computed in 16 bit.
    ``dtypes`` are the activation dtypes. ``tile`` is what the parts of a layer have to divide by, (output, input).
    ``since`` is the first version of vLLM with it, ``until`` the first without it, ``deprecated_since`` the first
    that warns or asks for a flag.
    """

    name: str
    title: str
    family: str
    argument: str
    status: Status
    in_flight: bool
    stored: bool
    weight_bits: float
    activation_bits: int
    bytes_per_linear_weight: float
    bytes_formula: str
    cpu: bool
    min_compute_capability: Version
    summary: str
    source: str
    aliases: tuple[str, ...] = ()
    vllm_names: tuple[str, ...] = ()
    max_compute_capability: Version | None = None
    weight_only_below: Version | None = None
    dtypes: tuple[str, ...] = ("bfloat16", "float16")
    platforms: tuple[str, ...] = ("cuda",)
    only: tuple[str, ...] = ()
    calibration: Calibration = "none"
    plugin: str | None = None
    plugin_since: Version | None = None
    requires: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    group_size: int | None = None
    tile: Version | None = None
    tensor_parallel_prequantized: bool = True
    eager_only: bool = False
    since: Version | None = None
    until: Version | None = None
    deprecated_since: Version | None = None
    instead: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    quality: Statement | None = None
    speed: Statement | None = None
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def served(self) -> bool:
        """Whether some vLLM serves it, with a plugin or without."""
        return self.status in ("current", "plugin", "retired")

    def source_of(self, fact: str) -> str:
        """Where the fact (a field's name) is from: its own source, or the entry's."""
        return dict(self.sources).get(fact, self.source)


_VERSIONS = (
    "min_compute_capability",
    "max_compute_capability",
    "weight_only_below",
    "plugin_since",
    "since",
    "until",
    "deprecated_since",
)


def parse_version(text: str) -> Version:
    """The numbers of a version such as "0.28.1"; ValueError where a part is not one."""
    return tuple(int(part) for part in text.split("."))


def read_method(name: str, entry: Mapping[str, Any]) -> Method:
    """One entry of the catalogue; ValueError names the field that is wrong, missing or unknown."""
    known = {field.name: field for field in fields(Method)}
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in known or key == "name":
            raise ValueError(f"{name}: there is no field {key!r}")
        values[key] = _value(name, key, value)
    needed = [key for key, field in known.items() if field.default is MISSING and key != "name"]
    missing = [key for key in needed if key not in values]
    if missing:
        raise ValueError(f"{name}: lacks {', '.join(missing)}")
    return Method(name=name, **values)


def _value(name: str, key: str, value: Any) -> object:  # noqa: ANN401
    allowed = {"status": get_args(Status), "calibration": get_args(Calibration)}.get(key)
    if allowed and value not in allowed:
        raise ValueError(f"{name}: {key} is {value!r}, not one of {', '.join(allowed)}")
    if key in _VERSIONS:
        return parse_version(value)
    if key in ("quality", "speed"):
        return Statement(value["text"], value["source"])
    if key == "sources":
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value


@cache
def methods() -> Mapping[str, Method]:
    """Every method by name, in the catalogue's order."""
    text = resources.files("quantui.data").joinpath("methods.toml").read_text(encoding="utf-8")
    return {name: read_method(name, entry) for name, entry in tomllib.loads(text).items()}


@cache
def _aliases() -> Mapping[str, str]:
    return {alias: entry.name for entry in methods().values() for alias in entry.aliases}


def method(name: str) -> Method:
    """The method called ``name``, by its own name or an alias (case and ``-`` for ``_`` do not matter).

    An unknown one is a QuantuiError with the nearest name.
    """
    known = methods()
    wanted = name.strip().lower().replace("-", "_")
    wanted = _aliases().get(wanted, wanted)
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, [*known, *_aliases()], 1, 0.4)
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
    if not chosen.served or chosen.status == "retired":
        raise refuse(
            f"{title} is not served by vLLM.", chosen.summary, f"Use {', '.join(chosen.instead)}."
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
