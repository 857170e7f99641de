"""The typed view of ``data/methods.toml``: the ways to hold the weights, and where their facts are from."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.hardware import Gpu

Status = Literal["current", "plugin", "retired", "training", "other-runtime", "research"]
"""current: vLLM's own; plugin: vLLM with a package of its own beside it; retired: vLLM dropped it or is about to;
training, other-runtime: not what vLLM serves; research: a published line of work that lives on in ``instead``."""

Calibration = Literal["none", "data", "optional"]
"""What making the checkpoint takes: nothing, texts to run through the model, or either."""

CpuExperts = Literal["yes", "amx", "no"]
"""Whether the CPU has a kernel for quantized experts: any CPU, one with AMX (x86), or none."""

Version = tuple[int, ...]
Older: TypeAlias = "tuple[tuple[Version, _T], ...]"
_T = TypeVar("_T")


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
    ``dtypes`` are the activation dtypes. ``split`` says what has to lie whole on one GPU: groups of ``group_size``
    inputs, or blocks of ``tile`` (outputs, inputs). ``marlin``: GPUs compute it with Marlin or a kernel like it.
    ``since`` is the first version of vLLM with it, ``until`` the first without it, ``deprecated_since`` the first
    that starts it only with a flag. ``older_*`` hold what was true before a version of vLLM; ``cautions_below`` what
    to say below a compute capability. ``only``: "moe" where nothing but experts is quantized;
    ``only_dense`` that models with experts are refused. ``plugin_excludes_older``: the plugin breaks older vLLMs.
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
    plugin_excludes_older: bool = False
    requires: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    group_size: int | None = None
    split: Literal["", "group", "block"] = ""
    tile: Version | None = None
    marlin: bool = False
    cpu_moe: CpuExperts = "yes"
    only_dense: bool = False
    tensor_parallel_prequantized: bool = True
    eager_only: bool = False
    since: Version | None = None
    until: Version | None = None
    deprecated_since: Version | None = None
    older_arguments: Older[str] = ()
    older_min_compute_capability: Older[Version] = ()
    cautions_below: Older[str] = ()
    instead: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    quality: Statement | None = None
    speed: Statement | None = None
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def served(self) -> bool:
        """Whether some vLLM serves it, with a plugin or without."""
        return self.status in ("current", "plugin", "retired")

    def came_after(self, vllm: Version) -> bool:
        """Whether that version of vLLM does not have it yet, under no name."""
        known = _older(self.older_arguments, vllm) is not None
        return self.since is not None and vllm < self.since and not known

    def argument_in(self, vllm: Version) -> str:
        """The value of ``--quantization`` in that version of vLLM."""
        return _older(self.older_arguments, vllm) or self.argument

    def min_capability_in(self, vllm: Version) -> Version:
        """The lowest compute capability it runs on with that version of vLLM."""
        older = _older(self.older_min_compute_capability, vllm)
        return self.min_compute_capability if older is None else older

    def source_of(self, fact: str) -> str:
        """Where the fact (a field's name) is from: its own source, or the entry's."""
        return dict(self.sources).get(fact, self.source)


def _older(known: Older[_T], vllm: Version) -> _T | None:
    """What held before the earliest of the versions that ``vllm`` is older than."""
    return next(
        (value for before, value in sorted(known, key=lambda one: one[0]) if vllm < before), None
    )


_VERSIONS = (
    "min_compute_capability",
    "max_compute_capability",
    "weight_only_below",
    "plugin_since",
    "since",
    "until",
    "deprecated_since",
)


_CHOICES = {
    "status": get_args(Status),
    "calibration": get_args(Calibration),
    "cpu_moe": get_args(CpuExperts),
    "split": ("", "group", "block"),
}


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
    allowed = _CHOICES.get(key)
    if allowed and value not in allowed:
        raise ValueError(f"{name}: {key} is {value!r}, not one of {', '.join(allowed)}")
    if key in _VERSIONS:
        return parse_version(value)
    if key in ("quality", "speed"):
        return Statement(value["text"], value["source"])
    if key == "sources":
        return tuple(value.items())
    if key in ("older_arguments", "cautions_below"):
        return tuple((parse_version(before), text) for before, text in value.items())
    if key == "older_min_compute_capability":
        return tuple((parse_version(before), parse_version(old)) for before, old in value.items())
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
    shape: ModelShape | None = None,
    config: Mapping[str, Any] | None = None,
    dtype: str = "auto",
    vllm_version: str | None = None,
) -> None:
    """Raise (exit code 3) the first reason that ``support`` (domain/support/method_support.py) finds against it."""
    from quantui.domain.support.method_support import support

    found = support(
        chosen,
        gpus=gpus,
        on_cpu=on_cpu,
        shape=shape,
        config=config,
        dtype=dtype,
        tensor_parallel=tensor_parallel,
        vllm_version=vllm_version,
        stored_as=checkpoint_quantization,
    )
    for one in found.refused:
        what, why = one.text, one.why
        if one.code == "serve.tensor-parallel":
            what, why = f"serve.tensor_parallel = {tensor_parallel} is not possible here.", what
        raise QuantuiError(one.code, what, why, one.fix, ExitCode.DOES_NOT_FIT)
