"""What a method asks of the devices: compute capability, CPU, dtype, and the family of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.hardware_checks import min_compute_capability
from quantui.domain.methods import methods
from quantui.domain.support.method_findings import Finding, Refused, called, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.hardware import Gpu
    from quantui.domain.methods import Method
    from quantui.domain.support.method_findings import Case

FLOAT16_REFUSED = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types that vLLM refuses in float16 (vLLM 0.32, config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS)."""

_BFLOAT16_SINCE = (8, 0)
"""vLLM 0.32, platforms/cuda.py, check_if_supports_dtype."""

_DTYPES = {"half": "float16", "float": "float32"}
_AWQ_MARLIN = (0, 5, 3)
"""The first vLLM that serves AWQ with Marlin, which takes bfloat16 (https://github.com/vllm-project/vllm/pull/6612)."""


def device_findings(case: Case) -> Iterator[Finding]:
    """What the devices lack for the method, and how it runs on them."""
    yield from _family(case)
    if case.on_cpu:
        yield from _cpu(case)
    elif case.method.served and not set(case.method.platforms) & {"cuda"}:
        yield Refused(
            f"{case.method.title} runs on {' and '.join(map(str.upper, case.method.platforms))} only.",
            why=case.method.source_of("platforms"),
            fix=_instead(case.method),
        )
    else:
        alike: dict[object, Gpu] = {}
        for gpu in case.gpus:
            alike.setdefault((gpu.name, gpu.compute_capability), gpu)
        for gpu in alike.values():
            yield from _capability(case, gpu)
    yield from _dtype(case)


def _family(case: Case) -> Iterator[Finding]:
    chosen, shape = case.method, case.shape
    if chosen.only_dense and shape is not None and shape.is_moe:
        yield Refused(
            f"{chosen.title} is not loaded for models with experts.",
            why=chosen.source_of("only_dense"),
            fix="Give the 16-bit model.",
        )
    if "moe" not in chosen.only:
        return
    if shape is None:
        yield Finding(f"{chosen.title} quantizes experts only: a dense model stays as it is.")
    elif not shape.is_moe:
        yield Refused(
            f"{chosen.title} quantizes experts only, and this model has none: nothing would be quantized.",
            why=chosen.source_of("only"),
            fix=_instead(chosen),
        )


def _cpu(case: Case) -> Iterator[Finding]:
    chosen, shape = case.method, case.shape
    if not chosen.cpu:
        runs = ", ".join(
            name
            for name, one in methods().items()
            if one.cpu and one.status in ("current", "plugin")
        )
        yield Refused(
            f"{chosen.title} does not run on the CPU.",
            why=chosen.source_of("cpu"),
            fix=f"Choose one of: {runs}.",
        )
    elif shape is not None and shape.is_moe and chosen.cpu_moe != "yes":
        yield from _cpu_experts(case)


def _cpu_experts(case: Case) -> Iterator[Finding]:
    """Experts have kernels of their own, on x86 mostly for CPUs with AMX."""
    chosen, flags = case.method, case.cpu_flags
    if chosen.cpu_moe == "amx" and flags is None:
        yield Finding(
            f"{chosen.title} runs experts on CPUs with AMX only; this CPU's flags are unknown."
        )
    elif chosen.cpu_moe == "no" or "amx_tile" not in (flags or ()):
        why = "" if chosen.cpu_moe == "no" else ": that needs AMX, which this CPU lacks"
        yield Refused(
            f"{chosen.title} does not run on the CPU for a model with experts{why}.",
            why=chosen.source_of("cpu_moe"),
            fix="Serve it in 16 bit, or on a GPU.",
        )


def _capability(case: Case, gpu: Gpu) -> Iterator[Finding]:
    chosen, have = case.method, gpu.compute_capability
    lowest = min_compute_capability(case.version)
    need = max(chosen.min_capability_in(case.version), lowest)
    most, full = chosen.max_compute_capability, chosen.weight_only_below
    if have is None:
        needs = f"{'vLLM' if chosen.name == 'none' else chosen.title} needs {dotted(need)}" + (
            f", and {dotted(full)} to compute in its own width" if full else ""
        )
        yield Finding(f"The compute capability of {called(gpu)} is unknown: {needs}.")
    elif have < need:
        text = f"{chosen.title} needs compute capability {dotted(need)}; {called(gpu)} has {dotted(have)}."
        if have < lowest:
            text = (
                f"vLLM needs compute capability {dotted(lowest)}; {called(gpu)} has {dotted(have)}."
            )
        yield Refused(
            text,
            why=chosen.source_of("min_compute_capability"),
            fix="Choose another method, or other devices with serve.visible_devices.",
        )
    elif most and have > most:
        yield Refused(
            f"{chosen.title} runs up to compute capability {dotted(most)}; {called(gpu)} has {dotted(have)}.",
            why=chosen.source_of("max_compute_capability"),
            fix=_instead(chosen),
        )
    elif full and have < full:
        yield Finding(
            f"{chosen.title}: weight-only on {called(gpu)}, which has compute capability {dotted(have)}; arithmetic in "
            f"{chosen.activation_bits} bit needs {dotted(full)}, so it computes in 16 bit.",
            weight_only=True,
        )
    for below, text in chosen.cautions_below:
        if have is not None and need <= have < below:
            yield Finding(f"{text} {called(gpu)} has {dotted(have)}.")


def _dtype(case: Case) -> Iterator[Finding]:
    """Activations: the dtype that would be used has to suit devices, model and method."""
    kinds = dict.fromkeys(
        case.shape.model_type.split() if case.shape and case.shape.model_type else ()
    )
    no_half = next((kind for kind in kinds if kind in FLOAT16_REFUSED), None)
    old = next(
        (gpu for gpu in case.gpus if (gpu.compute_capability or (99, 0)) < _BFLOAT16_SINCE), None
    )
    asked = _DTYPES.get(case.dtype, case.dtype)
    own = (case.shape.dtype if case.shape else None) or "bfloat16"
    wanted = asked if asked != "auto" else "bfloat16" if own == "float32" else own
    if old is not None and wanted == "bfloat16":
        have = dotted(old.compute_capability or ())
        if asked == "bfloat16":
            yield Refused(
                f"bfloat16 needs compute capability 8.0; {called(old)} has {have}.",
                why="vLLM 0.32, platforms/cuda.py, check_if_supports_dtype.",
                fix='Set serve.dtype = "half".'
                if no_half is None
                else 'Set serve.dtype = "float32".',
            )
            return
        wanted = "float16"
        if no_half is None and "float16" in case.method.dtypes:
            yield Finding(
                f"{called(old)} has compute capability {have} and no bfloat16: it runs in float16 "
                "(--dtype half).",
                dtype="float16",
            )
    if wanted == "float16" and no_half is not None:
        here = f", and {called(old)} has no bfloat16" if old else ""
        yield Refused(
            f"vLLM refuses {no_half} in float16{here}.",
            why="vLLM 0.32, config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS: numerical instability.",
            fix='Set serve.dtype = "float32" (twice the memory), or use a GPU of compute capability 8.0.'
            if old
            else 'Set serve.dtype = "bfloat16".',
        )
    elif wanted not in case.method.dtypes and wanted in ("bfloat16", "float16", "float32"):
        yield from _method_dtype(case, wanted, old)
    if case.method.name == "awq" and wanted == "bfloat16" and case.version < _AWQ_MARLIN:
        yield Refused(
            f"AWQ in vLLM {dotted(case.version)} computes in float16 only.",
            why="Its AWQ kernel takes float16; Marlin, which takes bfloat16, came with 0.5.3.",
            fix='Set serve.dtype = "half".',
        )


def _method_dtype(case: Case, wanted: str, old: Gpu | None) -> Iterator[Finding]:
    chosen = case.method
    takes = " or ".join(chosen.dtypes)
    if case.dtype == "auto" and wanted == "float16" and old is None and "bfloat16" in chosen.dtypes:
        yield Finding(
            f"{chosen.title} computes in {takes}: --dtype bfloat16 is needed.", dtype="bfloat16"
        )
        return
    device = f"; {called(old)} has only float16" if old and wanted == "float16" else ""
    yield Refused(
        f"{chosen.title} computes in {takes}, not in {wanted}{device}.",
        why=chosen.source_of("dtypes"),
        fix=f'Set serve.dtype = "{chosen.dtypes[0]}".' if not device else "Choose another method.",
    )


def _instead(chosen: Method) -> str:
    names = " or ".join(chosen.instead)
    return f"Use {names}." if names else "Choose another method, or other devices."
